// backhaul token create|list|remove
#include <fmt/format.h>

#include "apps/api_command.h"
#include "apps/api_view.h"
#include "apps/appliance_state.h"

namespace backhaul {
namespace {

struct TokenOptions : ApiOptions {
  std::string name, role = "Reader", lifetime, state;
};

// Seconds, with an optional suffix m, h, d.
Result<std::int64_t> parse_lifetime(const std::string& text) {
  const auto bad = [&] {
    return make_error(BaseErrc::invalid_argument,
                      "'" + text + "' is no lifetime; like 3600, 90m, 12h or 30d, at most 100 years");
  };
  if (text.empty()) return std::int64_t{0};
  std::int64_t unit = 1;
  std::string digits = text;
  switch (text.back()) {
    case 'm': unit = 60; break;
    case 'h': unit = 3600; break;
    case 'd': unit = 24 * 3600; break;
    default: break;
  }
  if (unit != 1) digits.pop_back();
  if (digits.empty() || digits.size() > 9 || digits.find_first_not_of("0123456789") != std::string::npos) return bad();
  const std::int64_t seconds = unit * std::stoll(digits);
  if (seconds == 0 || seconds > kMaxTokenLifetime_s) return bad();
  return seconds;
}

int print_new(const std::string& name, const std::string& role, const std::string& secret, bool json) {
  if (json)
    print_json({{"name", name}, {"role", role}, {"token", secret}});
  else
    fmt::print("{}\n", secret);  // alone on stdout, so that it can go into a file
  return kExitOk;
}

Result<int> create_token(ApiClient& client, const TokenOptions& options) {
  BH_RETURN_IF_ERROR(check_id("a token", options.name));
  BH_TRY(const auto lifetime_s, parse_lifetime(options.lifetime));
  boost::json::object properties{{"role", options.role}};
  if (lifetime_s != 0) properties["lifetimeSeconds"] = lifetime_s;
  BH_TRY(const auto answer,
         client.call("PUT", "/tokens/" + options.name, boost::json::object{{"properties", std::move(properties)}}));
  return print_new(options.name, text_part(answer.body, "/properties/role"),
                   text_part(answer.body, "/properties/secret"), options.json);
}

// Creates a token on the appliance's own machine, straight in its store.
Result<int> create_locally(const TokenOptions& options) {
  BH_TRY(const auto lifetime_s, parse_lifetime(options.lifetime));
  const auto role = parse_role(options.role);
  if (!role)
    return make_error(BaseErrc::invalid_argument, "--role '" + options.role + "': allowed are Reader, Operator, Admin");
  const auto file = std::filesystem::path(options.state) / kJobStoreName;
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored))
    return make_error(BaseErrc::invalid_argument, options.state + " is not the state directory of an appliance");
  BH_TRY(const auto store, open_sqlite_store(file));
  BH_TRY(const auto made, create_local_token(*store, options.name, *role, lifetime_s));
  return print_new(options.name, std::string(to_string(made.record.role)), made.secret, options.json);
}

Result<int> list_tokens(ApiClient& client, const TokenOptions& options) {
  BH_TRY(auto tokens, client.list("/tokens"));
  if (options.json) {
    print_json({{"value", std::move(tokens)}});
    return kExitOk;
  }
  std::vector<std::vector<std::string>> rows{{"TOKEN", "ROLE", "CREATED", "EXPIRES"}};
  for (const auto& token : tokens) {
    const auto expires = text_part(token, "/properties/expiresTime");
    rows.push_back({text_part(token, "/name"), text_part(token, "/properties/role"),
                    text_part(token, "/properties/createdTime"), expires.empty() ? "never" : expires});
  }
  print_table(rows);
  return kExitOk;
}

Result<int> remove_token(ApiClient& client, const TokenOptions& options) {
  BH_RETURN_IF_ERROR(check_id("a token", options.name));
  BH_RETURN_IF_ERROR(client.call("DELETE", "/tokens/" + options.name));
  if (options.json)
    print_json({{"removed", true}});
  else
    fmt::print("{} removed\n", options.name);
  return kExitOk;
}

}  // namespace

void add_token_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<TokenOptions>();
  auto* token = app.add_subcommand("token", "tokens of the API");
  token->require_subcommand(1);

  auto* created = token->add_subcommand("create", "create a token and print it, once");
  created->add_option("NAME", options->name, "the token's name, as the audit log shows it")->required();
  created->add_option("--role", options->role, "Reader, Operator or Admin")->capture_default_str();
  created->add_option("--lifetime", options->lifetime, "3600, 90m, 12h, 30d (default: for ever)");
  created->add_option("--state", options->state, "on the appliance's machine: its state directory, instead of the API");
  add_api_options(*created, *options);
  created->callback([options, &action] {
    action = [options] {
      if (options->state.empty()) return run_api(*options, create_token);
      const auto code = create_locally(*options);
      return code ? *code : print_error(code.error(), options->json);
    };
  });

  set_api_action(token->add_subcommand("list", "list tokens, without their secrets"), options, action, list_tokens);
  auto* removed = token->add_subcommand("remove", "remove a token: it is refused from now on");
  removed->add_option("NAME", options->name, "the token's name")->required();
  set_api_action(removed, options, action, remove_token);
}

}  // namespace backhaul
