// backhaul send, backhaul cancel
#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <memory>

#include "apps/commands.h"
#include "apps/progress_printer.h"
#include "dataplane/protocol/engine_error.h"
#include "dataplane/source/send.h"

namespace backhaul {
namespace {

struct SendOptions {
  std::string source, target, sync = "delta", format, changed, verify = "written", compress = "auto", limit,
                              staging = "auto", compare_by = "sha256", tls, tls_records = "auto";
  std::uint32_t lanes = 2;
  bool json = false;
};

Error bad_option(const std::string& name, const std::string& value, const std::string& allowed) {
  return make_error(BaseErrc::invalid_argument, fmt::format("--{} '{}': allowed are {}", name, value, allowed));
}

// Parses a word of a fixed set.
template <class T, class Parse>
Result<void> read_word(T& into, const std::string& name, const std::string& text, Parse parse,
                       const std::string& allowed) {
  const auto value = parse(text);
  if (!value) return bad_option(name, text, allowed);
  into = *value;
  return {};
}

Result<std::vector<ByteRange>> read_changed(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return make_error(EngineErrc::bad_extents_file, path + " cannot be read");
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  auto ranges = ChangedBlocks::parse(text);
  if (!ranges) return std::move(ranges).error().with_context(path);
  return ranges;
}

Result<SendRequest> make_request(const SendOptions& options) {
  SendRequest request;
  request.source = options.source;
  BH_TRY(request.target, parse_target_url(options.target));
  BH_RETURN_IF_ERROR(read_word(request.sync, "sync", options.sync, parse_sync_mode, "delta, full"));
  BH_RETURN_IF_ERROR(read_word(request.verify, "verify", options.verify, parse_verify_mode, "none, written, full"));
  BH_RETURN_IF_ERROR(read_word(request.staging, "staging", options.staging, parse_staging_choice, "auto, clone, undo"));
  BH_RETURN_IF_ERROR(read_word(request.compare_by, "compare-by", options.compare_by, parse_compare_by, "sha256, gmac"));
  BH_RETURN_IF_ERROR(read_word(request.compress, "compress", options.compress, parse_compress_mode, "auto, off, zstd"));
  if (!options.format.empty())
    BH_RETURN_IF_ERROR(read_word(request.format, "format", options.format, parse_disk_format, "raw, vhdx, vhdx-fixed"));
  if (options.lanes < 1 || options.lanes > kMaxLanes)
    return bad_option("lanes", std::to_string(options.lanes), "1 to 16");
  request.lanes = options.lanes;
  if (!options.limit.empty()) {
    const auto limit = parse_bytes(options.limit);
    if (!limit) return bad_option("limit", options.limit, "bytes per second, with a suffix K, M, G or T if wanted");
    request.limit_bytes_per_s = *limit;
  }
  if (!options.changed.empty()) {
    BH_TRY(request.changed, read_changed(options.changed));
  }
  return request;
}

boost::json::object to_json(const SendResult& result) {
  boost::json::object shape;
  const auto put = [&]<class T>(std::string_view name, const T& value) {
    if constexpr (std::is_arithmetic_v<T>)
      shape[name] = value;
    else  // a digest
      shape[name] = value.empty() ? boost::json::value(nullptr) : boost::json::value(value);
  };
  fields(put, result.stats);
  shape.erase("verify_seconds");  // a job's alone
  put("epoch", result.epoch), put("retries", result.retries);
  shape["format"] = to_string(result.format);
  shape["staging"] = to_string(result.staging);
  shape["compared_by"] = result.compared_by ? to_string(*result.compared_by) : "nothing";
  return shape;
}

void print_text(const SendResult& result) {
  const auto& stats = result.stats;
  const auto bytes = [](std::uint64_t value) { return human_bytes(static_cast<double>(value)); };
  fmt::print("disk {}, read {}, {} blocks compared, {} changed\n", bytes(stats.disk_bytes), bytes(stats.bytes_read),
             stats.blocks_compared, stats.blocks_changed);
  fmt::print("sent {} of content, {} on the wire, {:.2f} s, {}/s of disk\n", bytes(stats.payload_bytes),
             bytes(stats.wire_bytes), stats.seconds,
             human_bytes(static_cast<double>(stats.disk_bytes) / std::max(stats.seconds, 1e-3)));
  if (stats.resumed_bytes > 0) fmt::print("{} were kept from an earlier run\n", bytes(stats.resumed_bytes));
  fmt::print("format {}, staging {}\nroot digest source {}\nroot digest target {}\n", to_string(result.format),
             to_string(result.staging), stats.root_digest_source.empty() ? "-" : stats.root_digest_source,
             stats.root_digest_target.empty() ? "- (not computed)" : stats.root_digest_target);
}

Result<std::shared_ptr<TlsContext>> load_tls(const SendOptions& options) {
  BH_TRY(const auto records, read_tls_records(options.tls_records));
  return TlsContext::load(TlsRole::client, tls_directory(options.tls, "appliance"), records);
}

int run_send(const SendOptions& options) {
  auto request = make_request(options);
  if (!request) return print_error(request.error(), options.json);
  auto parts = real_parts();
  if (!parts) return print_error(parts.error(), options.json);
  auto tls = load_tls(options);
  if (!tls) return print_error(tls.error(), options.json);
  ProgressPrinter printer(options.json);
  request->progress = [&](const TransferProgress& progress) { printer.update(progress); };
  request->stop = &stop_on_signals();
  const auto result = send_disk(*request, **tls, *parts);
  printer.finish();
  if (!result) return print_error(result.error(), options.json);
  if (options.json)
    print_json(to_json(*result));
  else
    print_text(*result);
  return kExitOk;
}

int run_cancel(const SendOptions& options) {
  const auto target = parse_target_url(options.target);
  if (!target) return print_error(target.error(), options.json);
  auto tls = load_tls(options);
  if (!tls) return print_error(tls.error(), options.json);
  const auto cancelled = cancel_transfer(*target, **tls);
  if (!cancelled) return print_error(cancelled.error(), options.json);
  if (options.json)
    print_json({{"disk", target->disk}, {"cancelled", *cancelled}});
  else
    fmt::print("{}\n", *cancelled ? "cancelled; the old disk is back" : "there was no unfinished transfer");
  return kExitOk;
}

}  // namespace

void add_send_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<SendOptions>();
  auto* command = app.add_subcommand("send", "send one disk to a host agent; run it again to resume");
  command
      ->add_option(
          "SOURCE", options->source,
          "raw or VHDX disk, a block device, or an export: nbd+unix:///EXPORT?socket=PATH, nbd://localhost:PORT/EXPORT")
      ->required();
  command->add_option("TARGET", options->target, "backhaul://HOST:PORT/DISK")->required();
  command->add_option("--sync", options->sync, "delta (only blocks that differ) or full")->capture_default_str();
  command->add_option("--format", options->format, "raw, vhdx or vhdx-fixed, for a new disk (default: by the name)");
  command->add_option("--changed", options->changed, "JSON file with the only extents to send");
  command->add_option("--lanes", options->lanes, "parallel streams, 1 to 16")->capture_default_str();
  command->add_option("--verify", options->verify, "none, written (read back what was written) or full (read all)")
      ->capture_default_str();
  command->add_option("--compare-by", options->compare_by, "sha256, or gmac: faster, and no root digests")
      ->capture_default_str();
  command->add_option("--compress", options->compress, "auto, off or zstd")->capture_default_str();
  command->add_option("--limit", options->limit, "bytes per second; suffixes K, M, G");
  command->add_option("--staging", options->staging, "auto, clone or undo")->capture_default_str();
  command->add_option("--tls", options->tls, "directory with ca.crt, node.crt, node.key");
  command->add_option("--tls-records", options->tls_records, "auto or openssl: whose code makes TLS records")
      ->capture_default_str();
  command->add_flag("--json", options->json, "print one JSON object, no progress");
  command->callback([options, &action] { action = [options] { return run_send(*options); }; });
}

void add_cancel_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<SendOptions>();
  auto* command = app.add_subcommand("cancel", "give the old disk back after an unfinished send");
  command->add_option("TARGET", options->target, "backhaul://HOST:PORT/DISK")->required();
  command->add_option("--tls", options->tls, "directory with ca.crt, node.crt, node.key");
  command->add_flag("--json", options->json, "print JSON");
  command->callback([options, &action] { action = [options] { return run_cancel(*options); }; });
}

}  // namespace backhaul
