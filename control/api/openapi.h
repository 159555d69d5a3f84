// The OpenAPI 3.1 document, made from the routes (control/api/api_router.h) and the schemas of
// control/api/openapi_schemas.cpp.
#pragma once

#include <boost/json/object.hpp>
#include <string_view>

#include "control/api/api_router.h"

namespace backhaul {

boost::json::object openapi_document(const ApiRouter& router, std::string_view version);
boost::json::object openapi_schemas();

}  // namespace backhaul
