#include "control/store/store.h"

#include <algorithm>

namespace backhaul {

std::string_view to_string(Role role) noexcept {
  constexpr std::string_view kNames[] = {"Reader", "Operator", "Admin"};
  return kNames[static_cast<std::size_t>(role)];
}

std::optional<Role> parse_role(std::string_view text) noexcept {
  for (Role role : {Role::reader, Role::operator_, Role::admin}) {
    auto name = to_string(role);
    if (std::equal(name.begin(), name.end(), text.begin(), text.end(),
                   [](char a, char b) { return (a | 0x20) == (b | 0x20); }))
      return role;
  }
  return std::nullopt;
}

}  // namespace backhaul
