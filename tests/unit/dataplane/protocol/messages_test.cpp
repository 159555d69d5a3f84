#include "dataplane/protocol/messages.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "transport/stream/transport_error.h"

namespace backhaul {
namespace {

namespace json = boost::json;

OpenRequest some_open() {
  OpenRequest request;
  request.disk = "vms/web/disk.vhdx";
  request.size = 12345678901;
  request.sync = SyncMode::full;
  request.verify = VerifyMode::full;
  request.staging = StagingChoice::undo;
  request.format = DiskFormat::vhdx_fixed;
  request.changed_only = true;
  request.epoch = 77;
  request.compare_key.emplace();
  for (std::size_t i = 0; i < request.compare_key->size(); ++i)
    (*request.compare_key)[i] = static_cast<std::byte>(i * 17);
  return request;
}

OpenedSession some_opened() {
  OpenedSession opened;
  opened.session = "00ff";
  opened.epoch = 78;
  opened.size = 512;
  opened.format = DiskFormat::vhdx;
  opened.staging = StagingKind::undo_in_place;
  opened.had_old_disk = opened.resumed = opened.compare = opened.blank = true;
  opened.compare_by = CompareBy::gmac;
  return opened;
}

OpenedSession finished_before() {
  auto opened = some_opened();
  opened.session.clear();
  opened.finished = true;
  opened.root_digest = std::string(64, 'b');
  return opened;
}

const std::string kDigest(64, 'a');

// Each message: a whole JSON of it, and what reading one gives, written again.
struct Message {
  const char* name;
  json::object body;
  std::function<Result<json::object>(const json::object&)> read_and_write;
  std::vector<std::string> optional;
};
template <class Read>
auto through(Read read) {
  return [read](const json::object& body) -> Result<json::object> {
    BH_TRY(const auto value, read(body));
    return to_json(value);
  };
}
std::vector<Message> messages() {
  return {
      {"open", to_json(some_open()), through(open_request_from_json), {"format", "compare_key"}},
      {"opened", to_json(some_opened()), through(opened_from_json), {"keyed"}},
      {"opened, finished", to_json(finished_before()), through(opened_from_json), {"keyed", "finished", "root_digest"}},
      {"verb", to_json(VerbRequest{"vm/disk", 7}), through(verb_from_json), {"epoch"}},
      {"offer", to_json(Offer{"job-17.os"}), through(offer_from_json), {}},
      {"status",
       to_json(TargetStatus{TargetState::swapped, 512, DiskFormat::vhdx, 9, true}),
       through(status_from_json),
       {}},
      {"join", to_json(JoinRequest{"00ff", 3, 15}), through(join_from_json), {}},
      {"finish", to_json(FinishRequest{kDigest, false}), through(finish_from_json), {"root_digest"}},
      {"finished", to_json(FinishResult{kDigest, 9}), through(finished_from_json), {"root_digest"}}};
}

TEST(Messages, AreTheSameAfterARoundTripThroughText) {
  for (const auto& message : messages()) {
    SCOPED_TRACE(message.name);
    const auto again = message.read_and_write(json::parse(json::serialize(message.body)).as_object());
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_EQ(*again, message.body);
    auto more = message.body;
    more["unknown"] = 1;  // ignored
    ASSERT_TRUE(message.read_and_write(more));
    for (const auto& name : message.optional) {
      auto less = message.body;
      less.erase(name);
      const auto without = message.read_and_write(less);
      ASSERT_TRUE(without);
      EXPECT_EQ(*without, less);
    }
  }
}

TEST(Messages, NameTheFieldThatIsMissingOrMalformed) {
  const json::array wrong{nullptr,        json::array{},           json::object{},         -1,   1.5,
                          "no-such-word", json::string(5000, 'x'), std::uint64_t{1} << 63, true, 99999};
  for (const auto& message : messages()) {
    for (const auto& [name, good] : message.body) {
      SCOPED_TRACE(std::string(message.name) + "." + std::string(name));
      const auto expect_named = [&](const json::object& body) {
        const auto result = message.read_and_write(body);
        ASSERT_FALSE(result);
        EXPECT_EQ(result.error(), make_error_code(TransportErrc::bad_message));
        EXPECT_NE(result.error().cause().find("'" + std::string(name) + "'"), std::string::npos)
            << result.error().cause();
      };
      auto body = message.body;
      body.erase(name);
      if (std::find(message.optional.begin(), message.optional.end(), name) == message.optional.end())
        expect_named(body);
      for (const auto& value : wrong) {
        SCOPED_TRACE(json::serialize(value).substr(0, 40));
        if (value.kind() == good.kind() && !good.is_string()) continue;  // a good bool
        const bool number = good.is_uint64() || good.is_int64();
        if (number && value == 99999 && name != "lane") continue;  // a good number
        if (good.is_string() && value.is_string() && value.as_string().size() < 100 &&
            (name == "disk" || name == "session" || name == "staging" || name == "send"))
          if (name != "staging" || std::string(message.name).starts_with("opened")) continue;  // any text will do
        body[name] = value;
        expect_named(body);
      }
    }
  }
}

TEST(Messages, TakeADigestOnlyAs64LowerCaseHexadecimalDigits) {
  for (const auto& text :
       {std::string(), std::string(63, 'a'), std::string(65, 'a'), std::string(64, 'A'), std::string(64, 'g')}) {
    EXPECT_FALSE(finish_from_json({{"swap", true}, {"root_digest", text}})) << text;
    EXPECT_FALSE(finished_from_json({{"blocks_zeroed", 0}, {"root_digest", text}})) << text;
  }
  EXPECT_TRUE(finish_from_json({{"swap", true}, {"root_digest", std::string(64, '9')}}));
}

TEST(Messages, OffersHaveShortPlainNames) {
  for (const auto& id : {std::string("a"), std::string("Job-17._x"), std::string(64, 'z')}) {
    EXPECT_TRUE(offer_from_json({{"send", id}})) << id;
    EXPECT_TRUE(is_offer_id(id));
  }
  for (const auto& id : {std::string(), std::string(65, 'z'), std::string("a/b"), std::string("a b"),
                         std::string("\xc3\xa4"), std::string("a\0b", 3)}) {
    EXPECT_FALSE(offer_from_json({{"send", id}})) << id;
    EXPECT_FALSE(is_offer_id(id));
  }
}

TEST(Messages, LanesAreNumberedBelowTheLimit) {
  EXPECT_TRUE(join_from_json({{"session", "a"}, {"epoch", 1}, {"lane", kMaxLanes - 1}}));
  EXPECT_FALSE(join_from_json({{"session", "a"}, {"epoch", 1}, {"lane", kMaxLanes}}));
}

TEST(TransferWords, AreReadAsTheyAreWritten) {
  for (const auto mode : {SyncMode::delta, SyncMode::full}) EXPECT_EQ(parse_sync_mode(to_string(mode)), mode);
  for (const auto mode : {VerifyMode::none, VerifyMode::written, VerifyMode::full})
    EXPECT_EQ(parse_verify_mode(to_string(mode)), mode);
  for (const auto choice : {StagingChoice::automatic, StagingChoice::clone, StagingChoice::undo})
    EXPECT_EQ(parse_staging_choice(to_string(choice)), choice);
  for (const auto kind : {StagingKind::fresh, StagingKind::clone, StagingKind::undo, StagingKind::undo_in_place})
    EXPECT_EQ(parse_staging_kind(to_string(kind)), kind);
  for (const auto* text : {"", "Delta", "automatic", "?"}) {
    EXPECT_FALSE(parse_sync_mode(text));
    EXPECT_FALSE(parse_verify_mode(text));
    EXPECT_FALSE(parse_staging_choice(text));
    EXPECT_FALSE(parse_staging_kind(text));
  }
}

}  // namespace
}  // namespace backhaul
