#include "apps/api_client.h"

#include <fmt/format.h>

#include <cstdlib>
#include <fstream>

#include "apps/commands.h"
#include "control/agents/node_config.h"
#include "control/store/records.h"

namespace backhaul {
namespace {

constexpr std::string_view kBase = "/v1";
constexpr std::chrono::seconds kTimeout{60};  // preflight asks the host agent and samples disks
constexpr std::chrono::milliseconds kPause{500};
constexpr std::size_t kMostText = 4000;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : value;
}

Result<Endpoint> parse_api_url(const std::string& url) {
  const auto bad = [&] { return make_error(BaseErrc::invalid_argument, "'" + url + "' is not https://HOST:PORT"); };
  constexpr std::string_view kScheme = "https://";
  if (!url.starts_with(kScheme)) return bad();
  std::string rest = url.substr(kScheme.size());
  while (!rest.empty() && rest.back() == '/') rest.pop_back();
  if (rest.find(':') == std::string::npos) rest += ":443";
  auto endpoint = parse_endpoint(rest);
  if (!endpoint || endpoint->host.empty() || endpoint->port == 0) return bad();
  return endpoint;
}

Result<std::string> read_token(const ApiOptions& options) {
  std::string token;
  if (options.token_file.empty()) {
    token = environment("BACKHAUL_TOKEN");
    if (token.empty())
      return make_error(BaseErrc::invalid_argument, "no token: give --token-file FILE or set BACKHAUL_TOKEN");
  } else {
    std::ifstream in(options.token_file);
    if (!in || !std::getline(in, token))
      return make_error(BaseErrc::invalid_argument, "no token can be read from " + options.token_file);
  }
  while (!token.empty() && (token.back() == '\r' || token.back() == ' ')) token.pop_back();
  for (const char c : token)  // the token goes into a header
    if (c <= ' ' || c > '~') return make_error(BaseErrc::invalid_argument, "the token holds what no token holds");
  return token;
}

// A peer's text for the terminal, without control characters.
std::string printable(std::string_view text) {
  std::string clean;
  for (const char c : text.substr(0, kMostText)) clean += static_cast<unsigned char>(c) < ' ' && c != '\n' ? '?' : c;
  return clean;
}

Error refused(unsigned status, const boost::json::value& body) {
  std::string code = text_part(body, "/error/code");
  std::string message = text_part(body, "/error/message");
  if (code.empty()) code = fmt::format("http.{}", status);
  if (message.empty()) message = fmt::format("the appliance answered {}", status);
  for (const auto& detail : array_part(body, "/error/details")) {
    const auto more = text_part(detail, "/message");
    if (!more.empty() && message.find(more) == std::string::npos) message += "\n" + more;
  }
  return Error::from_peer(printable(code), printable(message),
                          printable(text_part(body, "/error/innererror/recommendedAction")),
                          truth_part(body, "/error/innererror/retryable") ? Retry::later : Retry::no);
}

// The path of an absolute URL of the API; a proxy may have another authority.
std::string path_of(std::string_view url) {
  const auto scheme = url.find("://");
  if (scheme == std::string_view::npos) return std::string(url);
  const auto slash = url.find('/', scheme + 3);
  return slash == std::string_view::npos ? "/" : std::string(url.substr(slash));
}

}  // namespace

void add_api_options(CLI::App& command, ApiOptions& options) {
  command.add_option("--api", options.api, "https://HOST:PORT of the appliance (BACKHAUL_API)");
  command.add_option("--token-file", options.token_file,
                     "file that holds the token (BACKHAUL_TOKEN: the token itself)");
  command.add_option("--tls", options.tls, "directory with ca.crt (BACKHAUL_TLS)");
  command.add_option("--ca", options.ca, "the CA's certificate, instead of --tls");
  command.add_flag("--json", options.json, "print JSON");
}

std::string ApiAnswer::job() const {
  const auto end = status_path.find('?');
  const auto path = status_path.substr(0, end);
  return path.substr(path.rfind('/') + 1);
}

ApiClient::ApiClient(std::unique_ptr<HttpClient> client, std::string authorization)
    : client_(std::move(client)), authorization_(std::move(authorization)) {}

Result<std::unique_ptr<ApiClient>> ApiClient::create(const ApiOptions& options) {
  std::string url = options.api.empty() ? environment("BACKHAUL_API") : options.api;
  if (url.empty()) url = "https://localhost:8443";
  BH_TRY(Endpoint endpoint, parse_api_url(url));
  BH_TRY(std::string token, read_token(options));
  const std::filesystem::path ca =
      options.ca.empty() ? tls_directory(options.tls, "appliance") + "/ca.crt" : options.ca;
  BH_TRY(auto tls, TlsContext::load_ca(ca));
  return std::unique_ptr<ApiClient>(new ApiClient(
      std::make_unique<HttpClient>(std::move(endpoint), std::move(tls), system_clock()), "Bearer " + token));
}

Result<ApiAnswer> ApiClient::call_target(std::string_view method, std::string_view target,
                                         const boost::json::value& body, const HttpHeaders& headers) {
  HttpHeaders all = headers;
  all.emplace_back("authorization", authorization_);
  std::string text;
  if (!body.is_null()) {
    all.emplace_back("content-type", "application/json");
    text = boost::json::serialize(body);
  }
  BH_TRY(HttpResponse response, client_->send(method, target, all, text, kTimeout));
  ApiAnswer answer;
  answer.status = response.status;
  if (!response.body.empty()) {
    boost::system::error_code failed;
    answer.body = boost::json::parse(response.body, failed);
    if (failed) answer.body = nullptr;
  }
  if (response.status >= 400) return refused(response.status, answer.body);
  if (response.status == 202) answer.status_path = path_of(response.header("azure-asyncoperation"));
  return answer;
}

Result<ApiAnswer> ApiClient::call(std::string_view method, std::string_view path, const boost::json::value& body,
                                  const HttpHeaders& headers) {
  return call_target(method, std::string(kBase) + std::string(path), body, headers);
}

Result<boost::json::value> ApiClient::get(std::string_view path) {
  const std::string target = path.starts_with(kBase) ? std::string(path) : std::string(kBase) + std::string(path);
  const auto deadline = system_clock().now() + patience_;
  for (;;) {
    auto answer = call_target("GET", target, nullptr, {});
    if (answer) return std::move(answer->body);
    const bool passing = answer.error().retry() == Retry::later;
    if (!passing || system_clock().now() >= deadline) return std::move(answer).error();
    system_clock().sleep_for(kPause);
  }
}

Result<boost::json::array> ApiClient::list(std::string_view path) {
  boost::json::array all;
  std::string target = std::string(kBase) + std::string(path);
  while (!target.empty()) {
    BH_TRY(ApiAnswer page, call_target("GET", target, nullptr, {}));
    for (const auto& element : array_part(page.body, "/value")) all.push_back(element);
    const auto next = text_part(page.body, "/nextLink");
    target = next.empty() ? std::string() : path_of(next);
  }
  return all;
}

Result<void> ApiClient::events(const std::function<bool(std::string_view kind, std::string_view data)>& event) {
  std::string pending, kind, data;
  bool wanted = true;
  const auto line = [&](std::string_view text) {
    if (text.empty()) {
      if (!data.empty()) wanted = event(kind, data);
      kind.clear();
      data.clear();
    } else if (text.starts_with("event:")) {
      kind = text.substr(text.find_first_not_of(' ', 6));
    } else if (text.starts_with("data:")) {
      data += text.substr(std::min(text.size(), text.find_first_not_of(' ', 5)));
    }
  };
  const auto piece = [&](std::string_view more) {
    pending += more;
    for (std::size_t end; wanted && (end = pending.find('\n')) != std::string::npos; pending.erase(0, end + 1))
      line(std::string_view(pending).substr(0, end > 0 && pending[end - 1] == '\r' ? end - 1 : end));
    return wanted && pending.size() < 1024 * 1024;
  };
  BH_TRY(HttpResponse response,
         client_->stream("GET", std::string(kBase) + "/events",
                         {{"authorization", authorization_}, {"accept", "text/event-stream"}}, piece));
  if (response.status < 400) return {};
  boost::system::error_code failed;
  return refused(response.status, boost::json::parse(response.body, failed));
}

std::string url_encode(std::string_view text) {
  std::string encoded;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                       c == '_' || c == '.' || c == '~';
    encoded += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return encoded;
}

Result<void> check_id(std::string_view what, std::string_view id) {
  if (is_valid_id(id)) return {};
  return make_error(BaseErrc::invalid_argument, fmt::format("'{}' is no name of {}", id, what));
}

const boost::json::value* find_part(const boost::json::value& value, std::string_view pointer) {
  boost::system::error_code absent;
  return value.find_pointer(pointer, absent);
}
std::string text_part(const boost::json::value& value, std::string_view pointer) {
  const auto* part = find_part(value, pointer);
  return part != nullptr && part->is_string() ? std::string(part->get_string()) : std::string();
}
double number_part(const boost::json::value& value, std::string_view pointer) {
  const auto* part = find_part(value, pointer);
  return part != nullptr && part->is_number() ? part->to_number<double>() : 0;
}
bool truth_part(const boost::json::value& value, std::string_view pointer) {
  const auto* part = find_part(value, pointer);
  return part != nullptr && part->is_bool() && part->get_bool();
}
const boost::json::array& array_part(const boost::json::value& value, std::string_view pointer) {
  static const boost::json::array kNone;
  const auto* part = find_part(value, pointer);
  return part != nullptr && part->is_array() ? part->get_array() : kNone;
}

}  // namespace backhaul
