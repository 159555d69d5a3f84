#include "control/api/api_filter.h"

#include <algorithm>
#include <optional>

#include "control/api/api_error.h"
#include "control/api/api_shapes.h"
#include "control/http/http_wire.h"
#include "control/model/iso_time.h"

namespace backhaul {
namespace {

constexpr std::size_t kMaxFilter = 4096;

Error bad(const std::string& why) { return make_error(ApiErrc::bad_query, "$filter: " + why); }

class FilterParser {
 public:
  explicit FilterParser(std::string_view text) : rest_(text) {}

  Result<std::vector<FilterTerm>> parse() {
    std::vector<FilterTerm> terms;
    while (true) {
      BH_TRY(auto term, parse_term());
      terms.push_back(std::move(term));
      if (at_end()) return terms;
      if (!take_word("and")) return bad("expected 'and' at '" + here() + "'");
    }
  }

 private:
  void skip() {
    while (!rest_.empty() && rest_.front() == ' ') rest_.remove_prefix(1);
  }
  bool at_end() {
    skip();
    return rest_.empty();
  }
  std::string here() const { return std::string(rest_.substr(0, 20)); }
  bool take(char c) {
    skip();
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  std::string word() {
    skip();
    std::size_t size = 0;
    while (size < rest_.size() && (std::isalnum(static_cast<unsigned char>(rest_[size])) || rest_[size] == '_')) ++size;
    std::string taken(rest_.substr(0, size));
    rest_.remove_prefix(size);
    return taken;
  }
  bool take_word(std::string_view wanted) {
    const auto before = rest_;
    if (to_lower(word()) == wanted) return true;
    rest_ = before;
    return false;
  }

  // NAME OP 'VALUE', or several of one name and `eq` in parentheses.
  Result<FilterTerm> parse_term() {
    if (!take('(')) return parse_comparison();
    BH_TRY(auto all, parse_comparison());
    while (!take(')')) {
      if (!take_word("or")) return bad("expected 'or' or ')' at '" + here() + "'");
      BH_TRY(auto next, parse_comparison());
      if (next.name != all.name || next.operation != "eq" || all.operation != "eq")
        return bad("'or' joins only 'eq' of one name");
      all.values.insert(all.values.end(), next.values.begin(), next.values.end());
    }
    return all;
  }

  Result<FilterTerm> parse_comparison() {
    FilterTerm term;
    term.name = to_lower(word());
    if (term.name.empty()) return bad("expected a name at '" + here() + "'");
    term.operation = to_lower(word());
    constexpr std::string_view kOperations[] = {"eq", "gt", "ge", "lt", "le"};
    if (std::find(std::begin(kOperations), std::end(kOperations), term.operation) == std::end(kOperations))
      return bad("'" + term.operation + "' after " + term.name + " is none of eq, gt, ge, lt, le");
    BH_TRY(const std::string value, parse_value());
    for (std::size_t at = 0; at <= value.size();) {
      const auto end = std::min(value.find(',', at), value.size());
      term.values.push_back(value.substr(at, end - at));
      at = end + 1;
    }
    return term;
  }

  Result<std::string> parse_value() {
    std::string value;
    if (!take('\'')) {  // times and numbers may stand without quotes
      while (!rest_.empty() && rest_.front() != ' ' && rest_.front() != ')' && rest_.front() != '\'') {
        value += rest_.front();
        rest_.remove_prefix(1);
      }
      if (value.empty()) return bad("expected a value in single quotes at '" + here() + "'");
      return value;
    }
    while (!rest_.empty()) {
      const char c = rest_.front();
      rest_.remove_prefix(1);
      if (c != '\'') {
        value += c;
      } else if (!rest_.empty() && rest_.front() == '\'') {
        value += '\'';
        rest_.remove_prefix(1);
      } else {
        return value;
      }
    }
    return bad("a quote is not closed");
  }

  std::string_view rest_;
};

template <class T, class Parse>
Result<void> read_all(const FilterTerm& term, Parse parse, std::vector<T>& values) {
  for (const auto& text : term.values) {
    const auto value = parse(text);
    if (!value) return bad(term.name + ": '" + text + "' is not known");
    values.push_back(*value);
  }
  return {};
}

bool any_is(const FilterTerm& term, std::string_view wanted) {
  return std::any_of(term.values.begin(), term.values.end(),
                     [&](const auto& value) { return to_lower(last_segment(value)) == to_lower(wanted); });
}

Result<void> apply(const FilterTerm& term, JobQuery& query) {
  auto& filter = query.filter;
  if (term.name == "starttime" || term.name == "endtime") {
    const bool start = term.name == "starttime";
    const auto time = term.values.size() == 1 ? parse_iso_time(term.values[0]) : std::nullopt;
    if (!time) return bad(term.name + ": not a time in ISO 8601");
    const std::string_view allowed = start ? "eq ge gt" : "eq le lt";
    if (allowed.find(term.operation) == allowed.npos) return bad(term.name + " takes " + std::string(allowed));
    if (start)
      filter.started_from_unix_s = std::max<std::int64_t>(1, *time + (term.operation == "gt" ? 1 : 0));
    else
      filter.started_until_unix_s = std::max<std::int64_t>(1, *time - (term.operation == "lt" ? 1 : 0));
    return {};
  }
  if (term.operation != "eq") return bad(term.name + " takes eq alone");
  if (term.name == "jobstatus") return read_all(term, parse_job_state, filter.states);
  if (term.name == "scenarioname") {
    BH_RETURN_IF_ERROR(read_all(term, parse_job_kind, filter.kinds));
    filter.with_replication = true;  // the kinds leave out what was not asked for
    return {};
  }
  if (term.name == "jobname") {
    for (const auto& value : term.values) query.ids.emplace_back(last_segment(value));
  } else if (term.name == "fabricid") {
    query.none |= !any_is(term, kFabric);
  } else if (term.name == "affectedobjecttypes") {
    std::vector<JobKind> kinds;
    for (std::size_t i = 0; i < kJobKinds; ++i)
      if (any_is(term, target_type(static_cast<JobKind>(i)))) kinds.push_back(static_cast<JobKind>(i));
    query.none |= kinds.empty();
    if (filter.kinds.empty()) filter.kinds = kinds;
    std::erase_if(filter.kinds,
                  [&](JobKind kind) { return std::find(kinds.begin(), kinds.end(), kind) == kinds.end(); });
    query.none |= filter.kinds.empty();
  } else if (term.name == "itemname" || term.name == "planname") {
    if (term.values.size() != 1) return bad(term.name + " takes one value");
    (term.name == "itemname" ? filter.item : filter.plan) = last_segment(term.values[0]);
  } else {
    return bad("'" + term.name + "' is not known");
  }
  return {};
}

}  // namespace

Result<std::vector<FilterTerm>> parse_filter(std::string_view text) {
  if (text.size() > kMaxFilter) return bad("too long");
  return FilterParser(text).parse();
}

Result<JobQuery> job_query(std::string_view filter) {
  JobQuery query;
  if (filter.empty()) return query;
  BH_TRY(const auto terms, parse_filter(filter));
  std::string seen = " ";
  for (const auto& term : terms) {
    const std::string mark = " " + term.name + " ";
    if (seen.find(mark) != seen.npos) return bad(term.name + " stands twice");
    seen += term.name + " ";
  }
  // ScenarioName first: AffectedObjectTypes narrows it.
  for (const bool scenario : {true, false})
    for (const auto& term : terms)
      if ((term.name == "scenarioname") == scenario) BH_RETURN_IF_ERROR(apply(term, query));
  return query;
}

}  // namespace backhaul
