#include "control/agents/source_paths.h"

#include <algorithm>

#include "dataplane/disk/io.h"
#include "dataplane/nbd/nbd.h"

namespace backhaul {
namespace fs = std::filesystem;
namespace {

bool is_below(const fs::path& path, const fs::path& root) {
  const auto [end, rest] = std::mismatch(root.begin(), root.end(), path.begin(), path.end());
  return end == root.end() && rest != path.end();
}

Result<fs::path> real_path(const fs::path& path) {
  std::error_code failed;
  auto found = fs::canonical(path, failed);
  if (failed) return Error::from_errno(failed.value(), path.string());
  return found;
}

Error outside(std::string_view path) {
  return make_error(IoErrc::outside_store, std::string(path.substr(0, 300)) +
                                               " is neither below the store nor below a directory of `sources`");
}

}  // namespace

Result<SourcePaths> SourcePaths::make(const fs::path& store, const std::vector<fs::path>& more) {
  SourcePaths paths;
  BH_TRY(paths.store_, real_path(store));
  paths.roots_.push_back(paths.store_);
  for (const auto& directory : more) {
    BH_TRY(auto root, real_path(directory));
    paths.roots_.push_back(std::move(root));
  }
  return paths;
}

Result<std::string> SourcePaths::resolve(std::string_view source) const {
  if (!is_nbd_uri(source)) {
    BH_TRY(const auto real, real_place(source));
    return real.string();
  }
  BH_TRY(const auto socket, nbd_socket_of(source));
  if (socket.empty()) return std::string(source);
  auto real = real_place(socket);
  if (!real && real.error() == std::make_error_code(std::errc::no_such_file_or_directory))
    return make_error(NbdErrc::cannot_connect, "there is no socket " + socket);
  if (!real) return std::move(real).error().with_context("NBD socket");
  return with_nbd_socket(source, real->string());
}

Result<fs::path> SourcePaths::real_place(std::string_view path) const {
  if (path.empty() || path.find('\0') != std::string_view::npos) return outside(path);
  const fs::path given(path);
  if (given.is_relative()) BH_RETURN_IF_ERROR(check_store_path(path));
  BH_TRY(auto real, real_path(given.is_relative() ? store_ / given : given));
  const bool allowed =
      std::any_of(roots_.begin(), roots_.end(), [&](const auto& root) { return is_below(real, root); });
  if (!allowed) return outside(path);
  return real;
}

Result<std::string> SourcePaths::store_name(std::string_view path) const {
  if (is_nbd_uri(path)) return make_error(NbdErrc::read_only, "a target disk");
  const fs::path given(path);
  std::string name(path);
  if (given.is_absolute()) {
    // The disk may not exist yet; its directory must.
    BH_TRY(const auto parent, real_path(given.parent_path()));
    const auto real = parent / given.filename();
    if (!is_below(real, store_))
      return make_error(IoErrc::outside_store, "a target disk lies below the store, " + name + " does not");
    name = real.lexically_relative(store_).string();
  }
  BH_RETURN_IF_ERROR(check_store_path(name));
  return name;
}

}  // namespace backhaul
