#include "control/api/api_router.h"

#include <algorithm>

#include "control/api/api_error.h"
#include "control/api/api_json.h"
#include "control/http/http_wire.h"

namespace backhaul {
namespace {

constexpr std::string_view kItemPlaces[] = {
    "replicationProtectedItems/{item}",
    "replicationFabrics/{fabric}/replicationProtectionContainers/{container}/replicationProtectedItems/{item}"};

std::vector<std::string> split(std::string_view path, char separator = '/') {
  std::vector<std::string> parts;
  while (true) {
    const auto end = path.find(separator);
    parts.emplace_back(path.substr(0, end));
    if (end == path.npos) return parts;
    path.remove_prefix(end + 1);
  }
}

bool is_parameter(std::string_view part) { return part.starts_with('{'); }

std::optional<int> hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

std::string_view path_of(std::string_view target) {
  for (const std::string_view scheme : {"https://", "http://"})  // absolute form: a proxy's habit
    if (target.starts_with(scheme)) {
      target.remove_prefix(scheme.size());
      const auto slash = target.find('/');
      target = slash == target.npos ? std::string_view("/") : target.substr(slash);
    }
  return target.substr(0, target.find('?'));
}

// Case matters in parameters only. Gives their values.
bool matches(const std::vector<std::string>& pattern, const std::vector<std::string>& parts,
             const std::vector<std::string>& lower) {
  if (pattern.size() != parts.size()) return false;
  for (std::size_t i = 0; i < pattern.size(); ++i)
    if (is_parameter(pattern[i]) ? parts[i].empty() : to_lower(pattern[i]) != lower[i]) return false;
  return true;
}

}  // namespace

std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space) {
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+' && plus_is_space) {
      decoded += ' ';
    } else if (text[i] != '%') {
      decoded += text[i];
    } else {
      if (i + 2 >= text.size()) return std::nullopt;
      const auto high = hex(text[i + 1]), low = hex(text[i + 2]);
      if (!high || !low) return std::nullopt;
      decoded += static_cast<char>(*high * 16 + *low);
      i += 2;
    }
  }
  const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (std::any_of(decoded.begin(), decoded.end(), control) || !is_utf8(decoded)) return std::nullopt;
  return decoded;
}

std::vector<std::string> ApiRouter::prefix(ApiBase base) {
  switch (base) {
    case ApiBase::tree:
      return {"subscriptions",   "{subscription}", "resourceGroups",
              "{resourceGroup}", "providers",      "Microsoft.RecoveryServices",
              "vaults",          "{vault}"};
    case ApiBase::v1: return {"v1"};
    case ApiBase::root: return {};
  }
  return {};
}

ApiRouter::ApiRouter(std::string_view vault) : vault_(to_lower(vault)) {
  for (const ApiRoute& route : api_routes()) {
    std::vector<std::string> paths;
    if (route.path.starts_with("ITEM"))
      for (const auto place : kItemPlaces) paths.push_back(std::string(place) + std::string(route.path.substr(4)));
    else
      paths.emplace_back(route.path);
    for (const auto& path : paths)
      for (const ApiBase base : {ApiBase::tree, ApiBase::v1, ApiBase::root}) {
        if (base != route.base && !(route.base == ApiBase::tree && base == ApiBase::v1)) continue;
        ApiPlace place{&route, base, prefix(base)};
        for (auto& part : split(path)) place.parts.push_back(std::move(part));
        places_.push_back(std::move(place));
      }
  }
}

Result<ApiRouter::Match> ApiRouter::match(ApiCall& call) const {
  const std::string_view raw_path = path_of(call.http.target);
  if (!raw_path.starts_with('/')) return make_error(ApiErrc::bad_request, "the target is no path");
  const auto raw = split(raw_path.substr(1));
  std::vector<std::string> parts, lower;
  for (const auto& part : raw) {
    const auto decoded = percent_decode(part);
    if (!decoded) return make_error(ApiErrc::bad_request, "the path is not encoded right");
    parts.push_back(*decoded);
    lower.push_back(to_lower(*decoded));
  }

  Match match;
  for (const auto& place : places_) {
    if (!matches(place.parts, parts, lower)) continue;
    const auto base_size = prefix(place.base).size();
    if (place.base == ApiBase::tree && lower[base_size - 1] != vault_) continue;
    match.allow += (match.allow.empty() ? "" : ", ") + std::string(place.route->method);
    if (place.route->method == "GET") match.allow += ", HEAD";
    const bool head = call.http.method == "HEAD" && place.route->method == "GET";
    if (match.route != nullptr || (call.http.method != place.route->method && !head)) continue;
    match.route = place.route;
    for (std::size_t i = 0; i < base_size; ++i) call.base += "/" + raw[i];
    for (std::size_t i = 0; i < parts.size(); ++i)
      if (is_parameter(place.parts[i])) call.path[place.parts[i].substr(1, place.parts[i].size() - 2)] = parts[i];
  }
  if (match.allow.empty()) return make_error(ApiErrc::no_route, std::string(raw_path.substr(0, 200)));
  return match;
}

Result<void> ApiRouter::read_query(const ApiRoute& route, ApiCall& call) {
  const auto start = call.http.target.find('?');
  if (start == std::string::npos) return {};
  const auto known = split(route.query, ' ');
  for (const auto& pair : split(std::string_view(call.http.target).substr(start + 1), '&')) {
    if (pair.empty()) continue;
    const auto equals = pair.find('=');
    const auto name = percent_decode(pair.substr(0, equals), true);
    const auto value =
        percent_decode(equals == std::string::npos ? "" : std::string_view(pair).substr(equals + 1), true);
    if (!name || !value) return make_error(ApiErrc::bad_query, "not encoded right");
    // OData's names may stand without their $ and in any case.
    const auto found = std::find_if(known.begin(), known.end(),
                                    [&](const std::string& k) { return !k.empty() && to_lower(k) == to_lower(*name); });
    const bool version = to_lower(*name) == "api-version";
    if (found == known.end() && !version)
      return make_error(ApiErrc::bad_query, "'" + *name + "' is no parameter of this path" +
                                                (route.query.empty() ? "" : "; known are " + std::string(route.query)));
    if (!call.query.emplace(version ? "api-version" : *found, *value).second)
      return make_error(ApiErrc::bad_query, "'" + *name + "' stands twice");
  }
  return {};
}

}  // namespace backhaul
