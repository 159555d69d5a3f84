#include "control/agents/host_services.h"

#include <spdlog/spdlog.h>

#include "control/drivers/json_driver.h"
#include "control/model/control_error.h"
#include "control/model/fields.h"
#include "transport/frames/frame_io.h"

namespace backhaul {
namespace {

constexpr std::string_view kPrefix = "/v1/host/";
constexpr std::chrono::minutes kKeepEnded{10};  // a result that nobody fetched

HttpResponse json_response(unsigned status, const boost::json::object& body) {
  HttpResponse response;
  response.status = status;
  response.body = boost::json::serialize(body) + "\n";
  return response;
}

HttpResponse error_response(unsigned status, const Error& error) {
  return json_response(status, {{"error", error_to_json(error)}});
}

unsigned status_of(const Error& error) {
  if (error == make_error_code(ControlErrc::not_found)) return 404;
  if (error == make_error_code(ControlErrc::invalid) || error == make_error_code(ControlErrc::driver_protocol))
    return 400;
  return error.retry() == Retry::later ? 503 : 500;
}

Result<std::string> id_of(const boost::json::object& body) {
  std::string id;
  Mistakes mistakes(From::peer, {});
  BH_RETURN_IF_ERROR(read_fields(
      body, [&](FieldReader& r) { r("id", id, Need::required); }, mistakes, ControlErrc::invalid));
  return id;
}

}  // namespace

HostServices::~HostServices() {
  std::map<std::string, std::shared_ptr<SendTask>> sends;
  {
    const std::lock_guard lock(mutex_);
    sends.swap(sends_);
  }
  for (auto& [id, send] : sends) {
    send->request_stop();
    offers_.withdraw(id);
  }
}

HttpResponse HostServices::refuse(unsigned status, std::string_view why) {
  return error_response(status, make_error(ControlErrc::invalid, std::string(why)));
}

HttpResponse HostServices::handle(const HttpRequest& request) {
  std::string_view path = request.target;
  if (!path.starts_with(kPrefix)) return refuse(404, "there is nothing at this path");
  if (request.method != "POST") {
    auto refused = refuse(405, "only POST is answered here");
    refused.headers.emplace_back("allow", "POST");
    return refused;
  }
  boost::system::error_code failed;
  auto body = boost::json::parse(request.body, failed);
  if (failed || !body.is_object()) return refuse(400, "the body is no JSON object");
  auto answer = serve(path.substr(kPrefix.size()), body.get_object(), request.peer);
  if (answer) return json_response(200, *answer);
  spdlog::warn("{}: {}: {}", request.peer, path.substr(0, 64), answer.error().to_string());
  return error_response(status_of(answer.error()), answer.error());
}

HostServices::Answer HostServices::serve(std::string_view call, const boost::json::object& body,
                                         const std::string& peer) {
  if (call == "report") return report();
  if (call == "driver") return driver_call(body);
  if (call == "sample") return sample(body);
  if (call == "send") return start_send(body, peer);
  if (call == "send-poll") return poll_send(body);
  if (call == "send-stop") return stop_send(body);
  return make_error(ControlErrc::not_found, "call '" + std::string(call.substr(0, 64)) + "'");
}

HostServices::Answer HostServices::report() {
  BH_TRY(const auto report, node_.report());
  return to_json(report);
}

HostServices::Answer HostServices::driver_call(const boost::json::object& body) {
  std::string name, verb;
  boost::json::object request;
  Mistakes mistakes(From::peer, {});
  const auto read_all = [&](FieldReader& r) {
    r("driver", name, Need::required), r("verb", verb, Need::required), r("request", request, Need::required);
  };
  BH_RETURN_IF_ERROR(read_fields(body, read_all, mistakes, ControlErrc::invalid));
  const auto driver = drivers_.find(name);
  if (driver == drivers_.end())
    return make_error(ControlErrc::not_found, "VM driver '" + name.substr(0, 64) + "' at this host agent");
  auto answer = serve_driver_call(*driver->second, verb, request);
  const bool looks = verb == "first-write" || verb == "changed-bytes";  // once a second while a job waits
  if (answer) spdlog::log(looks ? spdlog::level::debug : spdlog::level::info, "driver {}: {} done", name, verb);
  return answer;
}

HostServices::Answer HostServices::sample(const boost::json::object& body) {
  BH_TRY(const auto call, sample_call_from_json(body));
  BH_TRY(const auto sample, node_.sample(call));
  return to_json(sample);
}

void HostServices::drop_old_sends() {
  const auto now = node_.parts.clock->now();
  std::erase_if(sends_, [&](const auto& entry) {
    const auto ended = entry.second->ended_at();
    if (!ended || now - *ended <= kKeepEnded) return false;
    offers_.withdraw(entry.first);
    return true;
  });
}

HostServices::Answer HostServices::start_send(const boost::json::object& body, const std::string& peer) {
  BH_TRY(const auto call, send_call_from_json(body));
  BH_TRY(const auto source, node_.paths.resolve(call.source));
  const std::lock_guard lock(mutex_);
  drop_old_sends();
  if (sends_.contains(call.id)) return boost::json::object{{"started", false}};  // asked twice
  if (sends_.size() >= kMaxHostSends) return make_error(ControlErrc::busy, std::to_string(sends_.size()) + " sends");
  offers_.expect(call.id, peer);
  sends_[call.id] = std::make_shared<SendTask>(
      [this, call, peer, source](const ReportProgress& report, const std::atomic<bool>& stop) {
        return run_send(call, peer, source, report, stop);
      },
      *node_.parts.clock);
  return boost::json::object{{"started", true}};
}

Result<SendResult> HostServices::run_send(const SendCall& call, const std::string& peer, const std::string& source,
                                          const ReportProgress& report, const std::atomic<bool>& stop) {
  SendRequest request;
  request.source = source;
  request.target.disk = call.disk;
  request.sync = call.sync;
  request.verify = call.verify;
  request.format = call.format;
  request.changed = call.changed;
  request.compress = call.compress;
  request.lanes = call.lanes;
  request.limit_bytes_per_s = call.limit_bytes_per_s;
  request.epoch = call.epoch;
  request.swap = false;
  request.stop = &stop;
  request.progress = report;
  spdlog::info("send {}: {} to the appliance's {}, epoch {}", call.id, call.source, call.disk, call.epoch);
  const auto dial = [&](std::chrono::milliseconds timeout) { return offers_.dial(call.id, timeout); };
  if (!call.base_root.empty()) node_.set_delivered_base(call.source, call.base_root, request);
  auto result = digests_.run(peer + ":" + call.disk, request,
                             [&](const SendRequest& ready) { return send_disk(ready, dial, node_.parts); });
  if (result)
    spdlog::info("send {}: done, {} payload bytes", call.id, result->stats.payload_bytes);
  else
    spdlog::warn("send {}: {}", call.id, result.error().to_string());
  return result;
}

HostServices::Answer HostServices::poll_send(const boost::json::object& body) {
  BH_TRY(const auto id, id_of(body));
  const std::lock_guard lock(mutex_);
  const auto found = sends_.find(id);
  if (found == sends_.end()) return make_error(ControlErrc::not_found, "send " + id.substr(0, 64));
  return to_json(found->second->look());
}

HostServices::Answer HostServices::stop_send(const boost::json::object& body) {
  BH_TRY(const auto id, id_of(body));
  std::shared_ptr<SendTask> send;
  {
    const std::lock_guard lock(mutex_);
    const auto found = sends_.find(id);
    if (found == sends_.end()) return boost::json::object{{"stopped", false}};
    send = found->second;
    sends_.erase(found);
  }
  send->request_stop();
  offers_.withdraw(id);
  send->wait();
  return boost::json::object{{"stopped", true}};
}

}  // namespace backhaul
