// TOML as JSON, at the edge: whoever reads a file goes on with control/model/fields.h. The only place that sees toml++,
// whose header takes seconds to compile. Any thread.
#pragma once

#include <boost/json/object.hpp>
#include <optional>
#include <string_view>

#include "control/model/fields.h"

namespace backhaul {

// `mistakes` gets the lines of all that stands there. Nothing when the text is no TOML: then it says why, with the
// line. Dates and times become texts.
std::optional<boost::json::object> parse_toml(std::string_view text, Mistakes& mistakes);

}  // namespace backhaul
