#include "dataplane/protocol/transfer.h"

namespace backhaul {

std::string_view to_string(SyncMode mode) noexcept { return mode == SyncMode::delta ? "delta" : "full"; }

std::string_view to_string(VerifyMode mode) noexcept {
  switch (mode) {
    case VerifyMode::none: return "none";
    case VerifyMode::written: return "written";
    case VerifyMode::full: return "full";
  }
  return "?";
}

std::string_view to_string(StagingChoice choice) noexcept {
  switch (choice) {
    case StagingChoice::automatic: return "auto";
    case StagingChoice::clone: return "clone";
    case StagingChoice::undo: return "undo";
  }
  return "?";
}

std::string_view to_string(CompareBy compare) noexcept { return compare == CompareBy::gmac ? "gmac" : "sha256"; }

std::optional<SyncMode> parse_sync_mode(std::string_view text) noexcept {
  if (text == "delta") return SyncMode::delta;
  if (text == "full") return SyncMode::full;
  return std::nullopt;
}

std::optional<VerifyMode> parse_verify_mode(std::string_view text) noexcept {
  if (text == "none") return VerifyMode::none;
  if (text == "written") return VerifyMode::written;
  if (text == "full") return VerifyMode::full;
  return std::nullopt;
}

std::optional<StagingChoice> parse_staging_choice(std::string_view text) noexcept {
  if (text == "auto") return StagingChoice::automatic;
  if (text == "clone") return StagingChoice::clone;
  if (text == "undo") return StagingChoice::undo;
  return std::nullopt;
}

std::optional<CompareBy> parse_compare_by(std::string_view text) noexcept {
  if (text == "sha256") return CompareBy::sha256;
  if (text == "gmac") return CompareBy::gmac;
  return std::nullopt;
}

std::string_view to_string(TargetState state) noexcept {
  switch (state) {
    case TargetState::absent: return "absent";
    case TargetState::plain: return "plain";
    case TargetState::staged: return "staged";
    case TargetState::swapped: return "swapped";
  }
  return "?";
}

std::optional<TargetState> parse_target_state(std::string_view text) noexcept {
  for (const auto state : {TargetState::absent, TargetState::plain, TargetState::staged, TargetState::swapped})
    if (text == to_string(state)) return state;
  return std::nullopt;
}

}  // namespace backhaul
