// backhaul item add|list|show|remove|preflight|failover|commit|cancel|reprotect
#include <fmt/format.h>

#include "apps/api_command.h"
#include "apps/api_view.h"
#include "apps/failover_options.h"
#include "apps/job_watch.h"
#include "control/model/control_error.h"
#include "control/model/declaration.h"

namespace backhaul {
namespace {

struct ItemOptions : ApiOptions {
  std::string item, file;
  FailoverOptions failover;
  bool replace = false, wait = false, delete_source_disks = false;
};

constexpr std::chrono::milliseconds kRemovalLook{200};

std::string item_path(const ItemOptions& options) { return "/replicationProtectedItems/" + options.item; }

Result<int> add_item(ApiClient& client, const ItemOptions& options) {
  BH_TRY(const auto text, read_declaration(options.file));
  BH_TRY(const Item item, parse_item_toml(text, options.file));
  HttpHeaders headers;
  if (!options.replace) headers.emplace_back("if-none-match", "*");
  BH_TRY(const auto answer, client.call("PUT", "/replicationProtectedItems/" + item.id,
                                        boost::json::object{{"properties", declared_json(item)}}, headers));
  if (options.json)
    print_json(answer.body.as_object());
  else
    fmt::print("{} {}\n", item.id, answer.status == 201 ? "added" : "changed");
  return kExitOk;
}

Result<int> list_items(ApiClient& client, const ItemOptions& options) {
  BH_TRY(auto items, client.list("/replicationProtectedItems"));
  if (options.json)
    print_json({{"value", std::move(items)}});
  else
    print_items(items);
  return kExitOk;
}

Result<int> show_item(ApiClient& client, const ItemOptions& options) {
  BH_TRY(const auto item, client.get(item_path(options)));
  if (options.json)
    print_json(item.as_object());
  else
    print_item(item);
  return kExitOk;
}

// An item with replication cycles goes when the last cycle has ended.
Result<int> remove_item(ApiClient& client, const ItemOptions& options) {
  BH_TRY(const auto answer, client.call("DELETE", item_path(options)));
  bool gone = answer.status != 202;
  while (!gone && options.wait) {
    system_clock().sleep_for(kRemovalLook);
    const auto item = client.get(item_path(options));
    if (!item && !item.error().is(ControlErrc::not_found)) return item.error();
    gone = !item;
  }
  if (options.json)
    print_json({{"removed", gone}});
  else
    fmt::print("{} {}\n", options.item, gone ? "removed" : "goes when its replication has ended");
  return kExitOk;
}

Result<int> preflight_item(ApiClient& client, const ItemOptions& options) {
  BH_TRY(const auto body, failover_body(options.failover, false));
  BH_TRY(const auto answer, client.call("POST", item_path(options) + "/preflight", body));
  if (options.json)
    print_json(answer.body.as_object());
  else
    print_preflight(answer.body);
  return truth_part(answer.body, "/properties/passed") ? kExitOk : kExitFailed;
}

Result<int> failover_item(ApiClient& client, const ItemOptions& options) {
  BH_TRY(const auto body, failover_body(options.failover, false));
  BH_TRY(const auto answer, client.call("POST", item_path(options) + "/plannedFailover", body));
  return finish_verb(client, answer, "", options.wait, options.json);
}

Result<int> commit_item(ApiClient& client, const ItemOptions& options) {
  boost::json::value body;
  if (options.delete_source_disks) body = {{"properties", {{"backhaul", {{"deleteSourceDisks", true}}}}}};
  BH_TRY(const auto answer, client.call("POST", item_path(options) + "/failoverCommit", body));
  return finish_verb(client, answer, "the earlier failover is committed", options.wait, options.json);
}

Result<int> cancel_item(ApiClient& client, const ItemOptions& options) {
  BH_TRY(const auto answer, client.call("POST", item_path(options) + "/failoverCancel"));
  return finish_verb(client, answer, "cancelled", options.wait, options.json, true);
}

Result<int> reprotect_item(ApiClient& client, const ItemOptions& options) {
  BH_TRY(const auto answer, client.call("POST", item_path(options) + "/reProtect"));
  return finish_verb(client, answer, "", options.wait, options.json);
}

}  // namespace

void add_item_command(CLI::App& app, Action& action) {
  auto options = std::make_shared<ItemOptions>();
  auto* item = app.add_subcommand("item", "replication protected items: VMs with their disks and two locations");
  item->require_subcommand(1);

  auto* added = item->add_subcommand("add", "create an item as declared");
  added->add_option("FILE", options->file, "TOML (docs/OPERATIONS.md)")->required();
  added->add_flag("--replace", options->replace, "update the item when it exists");
  set_api_action(added, options, action, add_item);
  set_api_action(item->add_subcommand("list", "list items with state, lag and allowed operations"), options, action,
                 list_items);

  const auto verb = [&](const char* name, const char* about) {
    auto* command = item->add_subcommand(name, about);
    command->add_option("ITEM", options->item, "the item's id")->required();
    return command;
  };
  const auto with_id = [](auto work) {
    return [work](ApiClient& client, const ItemOptions& given) -> Result<int> {
      BH_RETURN_IF_ERROR(check_id("an item", given.item));
      return work(client, given);
    };
  };
  const auto job_verb = [&](const char* name, const char* about, auto work) {
    auto* command = verb(name, about);
    command->add_flag("--wait", options->wait, "wait until the job needs you or has ended");
    set_api_action(command, options, action, with_id(work));
    return command;
  };
  set_api_action(verb("show", "show an item with all its facts"), options, action, with_id(show_item));
  job_verb("remove", "remove an item; its VMs and disks stay", remove_item);
  auto* checked = verb("preflight", "check, change nothing, and estimate bytes, time and downtime");
  add_failover_options(*checked, options->failover, false);
  set_api_action(checked, options, action, with_id(preflight_item));
  add_failover_options(
      *job_verb("failover", "start a planned failover, to the primary site or back to the recovery site",
                failover_item),
      options->failover, false);
  job_verb("commit", "commit the failover: the failback's source VM is deleted", commit_item)
      ->add_flag("--delete-source-disks", options->delete_source_disks,
                 "delete its disks, too (else they are the base of Reverse Replicate)");
  job_verb("cancel", "cancel a planned failover, or undo it before it is committed", cancel_item);
  job_verb("reprotect", "Reverse Replicate: replicate to the recovery site", reprotect_item);
}

}  // namespace backhaul
