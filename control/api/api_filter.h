// $filter as Site Recovery's clients write it: comparisons of a name with a quoted value, joined with `and`;
// comparisons of one name may be joined with `or` in parentheses.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "control/jobs/service.h"

namespace backhaul {

struct FilterTerm {
  std::string name;                 // lower case
  std::string operation;            // eq ne gt ge lt le, lower case
  std::vector<std::string> values;  // any of these
};
// Errors: bad_query, saying where.
Result<std::vector<FilterTerm>> parse_filter(std::string_view text);

// Of jobs; `none`: the filter can match nothing (a fabric or an object type that is not here).
struct JobQuery {
  JobFilter filter;
  std::vector<std::string> ids;
  bool none = false;
};
Result<JobQuery> job_query(std::string_view filter);

}  // namespace backhaul
