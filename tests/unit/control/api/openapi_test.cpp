// The document is what is served: the same routes, and (in every other test of the API) the same answers.
#include <algorithm>
#include <filesystem>
#include <fstream>

#include "control/api/api_router.h"
#include "unit/control/api/api_fixture.h"

namespace backhaul::test {
namespace {

class OpenApi : public ApiFixture {};

TEST_F(OpenApi, EveryRouteIsDocumentedAndNothingElse) {
  std::set<std::string> served, written, ids;
  const ApiRouter router("backhaul");
  for (const auto& place : router.places()) {
    std::string path;
    for (const auto& part : place.parts) path += "/" + part;
    std::string method(place.route->method);
    for (auto& c : method) c = static_cast<char>(std::tolower(c));
    EXPECT_TRUE(served.insert(method + " " + path).second) << "two routes at " << method << " " << path;
  }
  for (const auto& path : document.at("paths").as_object())
    for (const auto& operation : path.value().as_object()) {
      if (operation.key() == "parameters") continue;
      written.insert(std::string(operation.key()) + " " + std::string(path.key()));
      EXPECT_TRUE(ids.insert(operation.value().at("operationId").as_string().c_str()).second);
    }
  EXPECT_EQ(served, written);
  EXPECT_GT(written.size(), 60U);
}

TEST_F(OpenApi, EveryDocumentedOperationIsServed) {
  declare("web");
  for (const auto& path : document.at("paths").as_object())
    for (const auto& operation : path.value().as_object()) {
      if (operation.key() == "parameters") continue;
      std::string target(path.key()), method(operation.key());
      for (auto& c : method) c = static_cast<char>(std::toupper(c));
      for (const auto& [name, value] : {std::pair<std::string, std::string>("{vault}", "backhaul"),
                                        {"{fabric}", "backhaul"},
                                        {"{container}", "items"}})
        if (const auto at = target.find(name); at != target.npos) target.replace(at, name.size(), value);
      while (target.find('{') != target.npos)
        target.replace(target.find('{'), target.find('}') - target.find('{') + 1, "x");
      const auto answer = call(method, target);
      EXPECT_NE(answer.code(), "http.no_route") << method << " " << target;
      EXPECT_NE(answer.status, 405U) << method << " " << target;
      EXPECT_LT(answer.status, 500U) << method << " " << target;
    }
}

void collect_references(const json::value& value, std::set<std::string>& found) {
  if (value.is_array())
    for (const auto& element : value.as_array()) collect_references(element, found);
  if (!value.is_object()) return;
  for (const auto& entry : value.as_object()) {
    if (entry.key() == "$ref") found.insert(entry.value().as_string().c_str());
    collect_references(entry.value(), found);
  }
}

TEST_F(OpenApi, IsWellFormed) {
  EXPECT_EQ(document.at("openapi"), "3.1.0");
  EXPECT_EQ(document.at("info").at("version"), "1.2.3");
  std::set<std::string> references, schemas;
  collect_references(document, references);
  for (const auto& schema : document.at("components").at("schemas").as_object())
    schemas.insert("#/components/schemas/" + std::string(schema.key()));
  EXPECT_EQ(references, schemas) << "every reference leads somewhere, and no schema is there for nothing";
  for (const auto& path : document.at("paths").as_object()) {
    std::set<std::string> named, declared;
    const std::string text(path.key());
    for (std::size_t at = 0; (at = text.find('{', at)) != text.npos; ++at)
      named.insert(text.substr(at + 1, text.find('}', at) - at - 1));
    if (const auto* parameters = path.value().as_object().if_contains("parameters"))
      for (const auto& parameter : parameters->as_array()) {
        EXPECT_EQ(parameter.at("in"), "path");
        EXPECT_EQ(parameter.at("required"), true);
        declared.insert(parameter.at("name").as_string().c_str());
      }
    EXPECT_EQ(named, declared) << text;
    for (const auto& operation : path.value().as_object()) {
      if (operation.key() == "parameters") continue;
      EXPECT_TRUE(operation.value().as_object().contains("responses"));
      EXPECT_EQ(operation.value().as_object().contains("security"), operation.value().at("x-backhaul-role") == "none")
          << text;
    }
  }
}

// docs/http_api.md has each route's last fixed part in its table.
TEST_F(OpenApi, ThePageForPeopleNamesEveryRoute) {
  std::ifstream file(std::filesystem::path(BACKHAUL_SOURCE_DIR) / "docs/http_api.md");
  std::string row, table;
  while (std::getline(file, row))
    if (row.starts_with("| ")) table += row + "\n";
  for (const ApiRoute& route : api_routes()) {
    std::string_view path = route.path;
    while (path.ends_with('}')) path = path.substr(0, path.rfind('/'));
    EXPECT_NE(table.find(path.substr(path.rfind('/') + 1)), std::string::npos) << route.operation;
    EXPECT_FALSE(route.summary.empty() || route.answers.empty()) << route.operation;
  }
}

}  // namespace
}  // namespace backhaul::test
