// backhaul digest: the root digest of a disk.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <thread>

#include "apps/commands.h"
#include "dataplane/scan/scan.h"
#include "dataplane/source/source_file.h"

namespace backhaul {
namespace {

struct DigestOptions {
  std::string disk;
  bool json = false;
};

struct DigestResult {
  std::string root, format;
  std::uint64_t size = 0;
};

Result<DigestResult> digest_of(const DigestOptions& options) {
  BH_TRY(const auto parts, real_parts());
  BH_TRY(auto file, open_source_file(options.disk));
  auto disk = open_disk(std::move(file), OpenMode::read, *parts.random);
  if (!disk) return std::move(disk).error().with_context(options.disk);
  ScanOptions scan;
  scan.threads = std::clamp(std::thread::hardware_concurrency(), 1U, 4U);
  scan.stop = &stop_on_signals();
  BH_TRY(const auto root, scan_disk(**disk, parts, scan));
  return DigestResult{to_hex(root), std::string(to_string((*disk)->format())), (*disk)->size()};
}

}  // namespace

void add_digest_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<DigestOptions>();
  auto* command = app.add_subcommand("digest", "root digest of a raw or VHDX disk: of its content and size only");
  command->add_option("DISK", options->disk, "the disk's file or device, or an NBD URI")->required();
  command->add_flag("--json", options->json, "print JSON");
  command->callback([options, &action] {
    action = [options]() -> int {
      const auto result = digest_of(*options);
      if (!result) return print_error(result.error(), options->json);
      if (options->json)
        print_json({{"disk", options->disk},
                    {"disk_bytes", result->size},
                    {"format", result->format},
                    {"root_digest", result->root}});
      else
        fmt::print("{}\n", result->root);
      return kExitOk;
    };
  });
}

}  // namespace backhaul
