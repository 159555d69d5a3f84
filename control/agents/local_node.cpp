#include "control/agents/local_node.h"

#include <spdlog/spdlog.h>

#include "dataplane/source/source_file.h"
#include "transport/pki/pki.h"

namespace backhaul {

Result<HostReport> LocalNode::report() const {
  HostReport report;
  BH_TRY(report.free_bytes, store.storage().free_space_bytes());
  report.unix_time_s = parts.clock->unix_time_s();
  for (const auto* file : {"node.crt", "ca.crt"}) {
    BH_TRY(const auto certificates, pki_show(tls_directory / file));
    for (const auto& certificate : certificates) {
      const auto ends = report.unix_time_s + certificate.seconds_left;
      if (report.certificate_ends_unix_s == 0 || ends < report.certificate_ends_unix_s)
        report.certificate_ends_unix_s = ends;
    }
  }
  report.networks = networks;
  report.generations = generations;
  for (const auto format : {DiskFormat::raw, DiskFormat::vhdx, DiskFormat::vhdx_fixed})
    report.formats.emplace_back(to_string(format));
  return report;
}

Result<std::unique_ptr<Disk>> LocalNode::open_source(std::string_view source) const {
  BH_TRY(const auto real, paths.resolve(source));
  BH_TRY(auto file, open_source_file(real));
  return open_disk(std::move(file), OpenMode::read, *parts.random);
}

Result<DiskSample> LocalNode::sample(const SampleCall& call) const {
  BH_TRY(auto disk, open_source(call.path));
  std::uint64_t allocated = 0;
  BH_TRY(const auto picked, pick_extents(*disk, call.pick == 0 ? 1 : call.pick, allocated));
  BH_TRY(auto sample, sample_extents(*disk, parts, call.pick == 0 ? call.extents : picked));
  sample.allocated_bytes = allocated;
  return sample;
}

void LocalNode::set_delivered_base(const std::string& source, const std::string& root_digest,
                                   SendRequest& request) const {
  if (!request.changed) return;
  const auto find = [&]() -> Result<std::optional<DiskDigests>> {
    BH_TRY(const auto name, paths.store_name(source));
    return store.delivered_digests(name, root_digest);
  };
  auto found = find();
  if (found && *found) {
    request.base = std::make_shared<const DiskDigests>(std::move(**found));
    return;
  }
  request.changed.reset();
  spdlog::info("{}: what was delivered is not known any more ({}): compares everything", source,
               found ? "no digests of " + root_digest : found.error().to_string());
}

}  // namespace backhaul
