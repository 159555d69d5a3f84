#include "dataplane/protocol/transfer.h"

namespace backhaul {
namespace {

constexpr std::string_view kSyncModes[] = {"delta", "full"};
constexpr std::string_view kVerifyModes[] = {"none", "written", "full"};
constexpr std::string_view kStagingChoices[] = {"auto", "clone", "undo"};
constexpr std::string_view kStagingKinds[] = {"fresh", "clone", "undo", "undo-in-place"};
constexpr std::string_view kComparedBy[] = {"sha256", "gmac"};
constexpr std::string_view kTargetStates[] = {"absent", "plain", "staged", "swapped"};

// `first`: the enum's value of the first word.
template <class E, std::size_t Count>
std::string_view word_of(E value, const std::string_view (&words)[Count], std::size_t first = 0) {
  const auto index = static_cast<std::size_t>(value) - first;
  return index < Count ? words[index] : "?";
}
template <class E, std::size_t Count>
std::optional<E> find_word(std::string_view text, const std::string_view (&words)[Count], std::size_t first = 0) {
  for (std::size_t i = 0; i < Count; ++i)
    if (words[i] == text) return static_cast<E>(i + first);
  return std::nullopt;
}

}  // namespace

std::string_view to_string(SyncMode mode) noexcept { return word_of(mode, kSyncModes); }
std::string_view to_string(VerifyMode mode) noexcept { return word_of(mode, kVerifyModes); }
std::string_view to_string(StagingChoice choice) noexcept { return word_of(choice, kStagingChoices); }
std::string_view to_string(StagingKind kind) noexcept { return word_of(kind, kStagingKinds, 1); }
std::string_view to_string(CompareBy compare) noexcept { return word_of(compare, kComparedBy); }
std::string_view to_string(TargetState state) noexcept { return word_of(state, kTargetStates); }

std::optional<SyncMode> parse_sync_mode(std::string_view text) noexcept {
  return find_word<SyncMode>(text, kSyncModes);
}
std::optional<VerifyMode> parse_verify_mode(std::string_view text) noexcept {
  return find_word<VerifyMode>(text, kVerifyModes);
}
std::optional<StagingChoice> parse_staging_choice(std::string_view text) noexcept {
  return find_word<StagingChoice>(text, kStagingChoices);
}
std::optional<StagingKind> parse_staging_kind(std::string_view text) noexcept {
  return find_word<StagingKind>(text, kStagingKinds, 1);
}
std::optional<CompareBy> parse_compare_by(std::string_view text) noexcept {
  return find_word<CompareBy>(text, kComparedBy);
}
std::optional<TargetState> parse_target_state(std::string_view text) noexcept {
  return find_word<TargetState>(text, kTargetStates);
}

}  // namespace backhaul
