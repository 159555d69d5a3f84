#include "control/jobs/preflight.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/units.h"
#include "control/jobs/estimate.h"

namespace backhaul {
namespace {

class Checks {
 public:
  void ok(std::string name) { checks_.push_back({std::move(name), CheckLevel::ok, {}, {}, {}}); }
  void add(CheckLevel level, std::string name, std::string code, std::string cause, std::string fix) {
    checks_.push_back({std::move(name), level, std::move(code), std::move(cause), std::move(fix)});
  }
  void failed(std::string name, std::string code, std::string cause, std::string fix) {
    add(CheckLevel::failed, std::move(name), std::move(code), std::move(cause), std::move(fix));
  }
  void failed(std::string name, const Error& error) {
    auto seen = to_job_error(error, 0);
    failed(std::move(name), seen.code, seen.cause, seen.fix);
    checks_.back().unreachable = error.is(ControlErrc::host_unreachable);
  }
  std::vector<Check> take() { return std::move(checks_); }

 private:
  std::vector<Check> checks_;
};

template <class T>
bool contains(const std::vector<T>& values, const T& value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

std::uint64_t source_size(const Location& source, const VmFacts& facts, const std::string& name) {
  for (const auto* disks : {&facts.disks, &source.disks})
    for (const auto& disk : *disks)
      if (disk.name == name && disk.size_bytes != 0) return disk.size_bytes;
  return 0;
}

// VHDX sizes are whole sectors.
bool sizes_agree(const TargetStatus& found, std::uint64_t size) {
  if (found.size == size) return true;
  return found.format != DiskFormat::raw && (found.size == align_up(size, 512) || found.size == align_up(size, 4096));
}

void check_disks(Checks& checks, const Location& source, const Location& target, const HostReport& report,
                 const std::vector<TargetStatus>& target_disks, const VmFacts& source_facts) {
  std::uint64_t needed = 0;
  for (std::size_t i = 0; i < target.disks.size(); ++i) {
    const DiskPlace& place = target.disks[i];
    const std::string name = "disk:" + place.name;
    const std::uint64_t size = source_size(source, source_facts, place.name);
    const TargetStatus found = i < target_disks.size() ? target_disks[i] : TargetStatus{};
    if (!report.formats.empty() && !contains(report.formats, std::string(to_string(place.format)))) {
      checks.failed(name, "preflight.format",
                    fmt::format("the host agent cannot write format {}", to_string(place.format)),
                    "Choose one of its formats for this disk.");
    } else if (found.state != TargetState::absent && found.format != place.format) {
      checks.failed(
          name, "preflight.format",
          fmt::format("the disk there is {}, the item says {}", to_string(found.format), to_string(place.format)),
          "Correct the item's format, or move the old disk away.");
    } else if (size == 0) {
      checks.failed(name, "preflight.disk_size", "the source disk's size is not known",
                    "Check that the VM driver describes this disk.");
    } else if (found.state != TargetState::absent && !sizes_agree(found, size)) {
      checks.failed(name, "preflight.disk_size",
                    fmt::format("the disk there has {} bytes, the source {}", found.size, size),
                    "A disk is never resized: check that both are the same disk, or move the old one away.");
    } else {
      checks.ok(name);
    }
    needed += size;  // a staged disk beside the old one, at worst
  }
  if (report.free_bytes >= needed)
    checks.ok("free-space");
  else
    checks.add(report.free_bytes * 10 >= needed ? CheckLevel::warning : CheckLevel::failed, "free-space",
               "preflight.free_space",
               fmt::format("{} bytes are free, at worst {} are needed", report.free_bytes, needed),
               "Free space in the host agent's store.");
}

}  // namespace

std::vector<Check> check_host(const Item& item, const Location& source, const Location& target,
                              const HostReport& report, const std::vector<TargetStatus>& target_disks,
                              const VmFacts& source_facts, std::int64_t now_unix_s) {
  Checks checks;
  const std::int64_t life_s = report.certificate_ends_unix_s - now_unix_s;
  if (report.certificate_ends_unix_s == 0 || life_s >= kWarnCertificateLife_s)
    checks.ok("certificates");
  else
    checks.add(life_s < kMinCertificateLife_s ? CheckLevel::failed : CheckLevel::warning, "certificates",
               "preflight.certificates", fmt::format("a certificate ends in {} hours", life_s / 3600),
               "Issue new certificates with `backhaul pki issue`.");
  if (const std::int64_t skew_s = std::abs(report.unix_time_s - now_unix_s); skew_s <= kMaxClockSkew_s)
    checks.ok("clock");
  else
    checks.failed("clock", "preflight.clock_skew", fmt::format("the clocks differ by {} s", skew_s),
                  "Set both clocks by NTP.");
  if (report.generations.empty() || contains(report.generations, item.vm.generation))
    checks.ok("generation");
  else
    checks.failed("generation", "preflight.generation",
                  fmt::format("the host cannot run generation {} VMs", item.vm.generation), "Choose a host that can.");
  for (const auto& nic : item.vm.nics) {
    if (contains(report.networks, nic.network))
      checks.ok("network:" + nic.network);
    else
      checks.failed("network:" + nic.network, "preflight.network", "there is no virtual switch of that name",
                    "Create it at the host, or correct the item's NIC.");
  }
  check_disks(checks, source, target, report, target_disks, source_facts);
  return checks.take();
}

std::vector<Check> check_vm(const Item&, const Location& target, const VmFacts& facts,
                            const PlannedFailoverRequest& request) {
  Checks checks;
  if (facts.power == PowerState::running)
    checks.failed("target-vm", "preflight.target_runs", "the VM runs at the target already",
                  "Shut it down there; the source VM is the one that counts.");
  else if (facts.power == PowerState::absent && target.vm_exists && !request.create_vm_if_not_found)
    checks.failed("target-vm", "preflight.target_vm", "the VM is not known at the target",
                  "Ask for recoveryVmCreationOption CreateVmIfNotFound.");
  else
    checks.ok("target-vm");
  return checks.take();
}

PreflightReport run_preflight(JobServices& services, const Item& item, const Location& source, const Location& target,
                              const PlannedFailoverRequest& request) {
  PreflightReport report;
  Checks own;
  VmFacts source_facts;
  auto source_driver = services.drivers.driver_for(source);
  auto facts =
      source_driver ? (*source_driver)->describe(vm_ref(item, source)) : Result<VmFacts>(source_driver.error());
  if (!facts)
    own.failed("source-vm", facts.error());
  else if (facts->power == PowerState::absent)
    own.failed("source-vm", "preflight.source_vm", "the source VM does not exist",
               "Check the item's driver, settings and VM name.");
  else
    own.ok("source-vm"), source_facts = *facts;

  // On the way to the recovery site the agent is the source's; it must answer, too.
  const std::string& host = target.host.empty() ? source.host : target.host;
  auto host_report = services.data_plane.host_report(host);
  if (!host_report)
    own.failed("host-agent", host_report.error());
  else
    own.ok("host-agent");
  auto target_host = target.host == host ? host_report : services.data_plane.host_report(target.host);
  report.checks = own.take();
  auto append = [&](std::vector<Check> more) { report.checks.insert(report.checks.end(), more.begin(), more.end()); };

  if (host_report && target_host) {
    std::vector<TargetStatus> disks;
    for (const auto& place : target.disks) {
      auto found = services.data_plane.query_disk({target.host, place.path});
      if (!found) own.failed("disk:" + place.name, found.error());
      disks.push_back(found ? *found : TargetStatus{});
    }
    append(own.take());
    append(check_host(item, source, target, *target_host, disks, source_facts, services.clock.unix_time_s()));
    auto driver = services.drivers.driver_for(target);
    auto target_facts = driver ? (*driver)->describe(vm_ref(item, target)) : Result<VmFacts>(driver.error());
    if (!target_facts) {
      own.failed("target-vm", target_facts.error());
    } else {
      append(check_vm(item, target, *target_facts, request));
      auto more = (*driver)->preflight(vm_ref(item, target), item.vm);
      if (more)
        append(std::move(*more));
      else
        own.failed("target-driver", more.error());
    }
    append(own.take());
  }
  report.passed = first_failed(report) == nullptr;
  return report;
}

const Check* first_failed(const PreflightReport& report) {
  auto found = std::find_if(report.checks.begin(), report.checks.end(),
                            [](const Check& check) { return check.level == CheckLevel::failed; });
  return found == report.checks.end() ? nullptr : &*found;
}

Estimate sample_estimate(JobServices& services, const Item& item, const Location& source, const Location& target) {
  std::vector<ChangeSample> samples;
  std::string reason;
  for (const auto& place : source.disks) {
    auto paired = std::find_if(target.disks.begin(), target.disks.end(),
                               [&](const auto& disk) { return disk.name == place.name; });
    if (paired == target.disks.end()) continue;
    auto sample = services.data_plane.sample({source.host, place.path}, {target.host, paired->path});
    if (sample)
      samples.push_back(*sample);
    else
      reason = "disk " + place.name + " was not sampled: " + sample.error().to_string();
  }
  Estimate result = estimate(item, samples);
  if (!reason.empty()) result.reason = reason;
  return result;
}

}  // namespace backhaul
