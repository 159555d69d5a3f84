// The qemu driver from the command line, for tests that script it against a real QEMU. Reads lines "VERB JSON" from
// stdin, does each call, and answers with one line of JSON: what the driver gave, or {"error": {"code", "cause"}}. Ends
// with its input; the driver's watch runs meanwhile.
//   driver_tool OPTIONS     OPTIONS: JSON, the keys of docs/qemu_driver.md: state, disks, attach, networks, ...
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <boost/json.hpp>
#include <iostream>
#include <string>

#include "control/drivers/json_driver.h"
#include "control/drivers/qemu/qemu_driver.h"

namespace {

using namespace backhaul;
namespace json = boost::json;

void read_texts(const json::object& from, const char* key, std::vector<std::string>& into) {
  if (const auto* list = from.if_contains(key))
    for (const auto& text : list->as_array()) into.emplace_back(text.as_string());
}

QemuDriverOptions options_from(const json::object& from) {
  QemuDriverOptions options;
  const auto text = [&](const char* key, std::string& into) {
    if (const auto* value = from.if_contains(key)) into = std::string(value->as_string());
  };
  text("state", options.state);
  text("binary", options.binary);
  text("machine", options.machine);
  text("disk_bus", options.disk_bus);
  text("firmware_code", options.firmware_code);
  read_texts(from, "disks", options.disks);
  read_texts(from, "attach", options.attach);
  read_texts(from, "arguments", options.arguments);
  if (const auto* networks = from.if_contains("networks"))
    for (const auto& [name, value] : networks->as_object())
      options.networks[std::string(name)] = std::string(value.as_string());
  if (const auto* bytes = from.if_contains("reserve_bytes")) options.reserve_bytes = bytes->to_number<std::uint64_t>();
  if (const auto* seconds = from.if_contains("timeout_s")) options.timeout_s = seconds->to_number<std::uint32_t>();
  return options;
}

json::object answer(VmDriver& driver, const std::string& line) {
  const auto space = line.find(' ');
  auto done = serve_driver_call(driver, line.substr(0, space), json::parse(line.substr(space + 1)).as_object());
  if (done) return std::move(*done);
  return {{"error", json::object{{"code", done.error().symbol()}, {"cause", done.error().cause()}}}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: driver_tool OPTIONS (JSON)\n";
    return 2;
  }
  spdlog::set_default_logger(spdlog::stderr_logger_mt("driver"));
  const auto driver = make_qemu_driver(options_from(json::parse(argv[1]).as_object()));
  for (std::string line; std::getline(std::cin, line);)
    std::cout << json::serialize(answer(*driver, line)) << std::endl;
  return 0;
}
