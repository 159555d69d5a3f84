// The HTTP layer's own errors, and the table from every error to a status and an ARM error body (docs/http_api.md).
#pragma once

#include <string_view>

#include "base/error.h"
#include "control/http/http.h"

namespace backhaul {

enum class ApiErrc {
  bad_request = 1,         // not HTTP/1.1, or a target that is not a URL                      400
  bad_json,                // the body is not a JSON object                                    400
  bad_field,               // a field is unknown, missing or of the wrong type                 400
  bad_query,               // a query parameter is unknown or wrong                            400
  no_route,                // no such path                                                     404
  method_not_allowed,      // the path exists                                                  405
  too_slow,                // the request did not arrive in time                               408
  version_mismatch,        // If-Match or If-None-Match does not hold                          412
  body_too_large,          //                                                                  413
  unsupported_media_type,  // a body that is not application/json                              415
  expectation_failed,      // Expect other than 100-continue                                   417
  too_many_failures,       // bad tokens from one address                                      429
  header_too_large,        //                                                                  431
  internal,                // a defect of ours                                                 500
  too_many_streams,        // event streams                                                    503
};
const ErrorCategory& api_category() noexcept;
inline std::error_code make_error_code(ApiErrc value) { return {static_cast<int>(value), api_category()}; }

// The one table from errors to statuses.
unsigned http_status(const Error& error) noexcept;
// {"error": {...}}; `target` when known. Never holds more than the error's texts.
HttpResponse error_response(const Error& error, std::string_view target = {});
// For what serve_http() refuses.
Error error_of_status(unsigned status, std::string_view why);

}  // namespace backhaul

template <>
struct std::is_error_code_enum<backhaul::ApiErrc> : std::true_type {};
