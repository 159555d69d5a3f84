// Runs the API's commands: makes the client, runs the command, prints errors, gives the exit code.
#pragma once

#include <memory>

#include "apps/api_client.h"
#include "apps/commands.h"

namespace backhaul {

template <class Options, class Work>
int run_api(const Options& options, Work work) {
  auto client = ApiClient::create(options);
  if (!client) return print_error(client.error(), options.json);
  const Result<int> code = work(**client, options);
  return code ? *code : print_error(code.error(), options.json);
}

// Adds the connection's options to `command` and makes `work(client, options)` its action.
template <class Options, class Work>
void set_api_action(CLI::App* command, const std::shared_ptr<Options>& options, Action& action, Work work) {
  add_api_options(*command, *options);
  command->callback([options, &action, work] { action = [options, work] { return run_api(*options, work); }; });
}

}  // namespace backhaul
