// Which files of this node may be read as a source: those below its store, and those below further directories that its
// configuration names (where a VM driver puts snapshots). Paths come from peers, drivers and declared items; links are
// followed and the place where they lead is what counts. An NBD export (dataplane/nbd/nbd.h) may be read when its
// server's Unix socket lies there, or when the server is on the loopback. Immutable, thread-safe.
#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace backhaul {

class SourcePaths {
 public:
  // Error: a directory that does not exist.
  static Result<SourcePaths> make(const std::filesystem::path& store, const std::vector<std::filesystem::path>& more);

  // What to open (dataplane/source/source_file.h) for a path or an NBD URI. A relative path, a socket's too, is below
  // the store. Errors: IoErrc::outside_store; that of a path that leads nowhere; NbdErrc.
  Result<std::string> resolve(std::string_view source) const;
  // The name below the store of a target disk, which may be given as an absolute path. IoErrc::outside_store;
  // NbdErrc::read_only.
  Result<std::string> store_name(std::string_view path) const;

 private:
  Result<std::filesystem::path> real_place(std::string_view path) const;

  std::filesystem::path store_;  // canonical
  std::vector<std::filesystem::path> roots_;
};

}  // namespace backhaul
