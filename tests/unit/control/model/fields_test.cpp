// What the one reader of fields refuses, tells and lets pass, by who wrote the object.
#include "control/model/fields.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <sstream>

#include "control/model/control_error.h"
#include "control/model/model_fields.h"
#include "control/model/model_json.h"
#include "control/model/toml_json.h"
#include "dataplane/protocol/transfer.h"

namespace backhaul {

enum class Brake { rim = 1, disc };
std::string_view to_string(Brake brake) { return brake == Brake::rim ? "rim" : "disc"; }
std::optional<Brake> parse_brake(std::string_view text) {
  if (text == "rim") return Brake::rim;
  return text == "disc" ? std::optional(Brake::disc) : std::nullopt;
}
template <>
struct Word<Brake> : Words<parse_brake, Brake::disc, Brake::rim> {};

namespace {

struct Wheel {
  std::string name;
  std::uint32_t spokes = 32;
};
struct Bicycle {
  std::string maker = "nobody", kind = "town";
  std::uint64_t gears = 1;
  std::int64_t sold_unix_s = 0;
  double kilograms = 0;
  std::optional<bool> lamp;
  std::optional<Brake> front, back;
  std::vector<Wheel> wheels;
  std::vector<std::uint32_t> chainrings{42};
};
template <class A>
void fields(A& a, Wheel& v) {
  a("name", v.name, Need::required), a("spokes", v.spokes, Within{12, 48});
}
template <class A>
void fields(A& a, Bicycle& v) {
  a("maker", v.maker, AtMost{8}), a("kind", v.kind, OneOf{"town, race"}),
      a("gears", v.gears, Need::declared, Within{1, 33});
  a("sold", v.sold_unix_s), a("kilograms", v.kilograms), a("lamp", v.lamp), a("wheels", v.wheels, AtMost{2});
  a("front", v.front), a("back", v.back);
  a("chainrings", v.chainrings, Within{20, 60});
}

Result<Bicycle> read(std::string_view json, From from) {
  return read_fields<Bicycle>(boost::json::parse(json).as_object(), from, "shop", ControlErrc::invalid);
}
std::string cause(std::string_view json, From from) {
  const auto bicycle = read(json, from);
  return bicycle ? "" : bicycle.error().cause();
}

TEST(Fields, EveryKindOfFieldComesThroughAndWhatIsNotSaidKeepsItsDefault) {
  Bicycle bicycle;
  bicycle = {"ours", "race", 22, -5, 8.5, false, Brake::disc, {}, {{"front", 20}, {"back", 24}}, {34, 50}};
  const auto back = read_fields<Bicycle>(write_fields(bicycle), From::store, "", ControlErrc::invalid);
  ASSERT_TRUE(back) << back.error().cause();
  EXPECT_EQ(write_fields(*back), write_fields(bicycle));
  EXPECT_EQ(back->wheels[1].spokes, 24u);
  EXPECT_EQ(back->front, Brake::disc);
  EXPECT_FALSE(back->back);
  const auto plain = read(R"({"gears": 3, "maker": null})", From::people);
  ASSERT_TRUE(plain) << plain.error().cause();
  EXPECT_EQ(plain->maker, "nobody");
  EXPECT_EQ(plain->chainrings, std::vector<std::uint32_t>{42});
  EXPECT_FALSE(plain->lamp);
  EXPECT_FALSE(write_fields(*plain).contains("lamp"));
}

TEST(Fields, PeopleAreToldEveryMistakeWithItsPath) {
  EXPECT_EQ(
      cause(
          R"({"maker": "much too long", "kind": "", "sold": 1.5, "lamp": "yes", "front": "", "back": 3, "bell": 1, "horn": null,
                     "wheels": [{"name": "", "spokes": 3}, 7], "chainrings": [61, "x"]})",
          From::people),
      "shop: maker: has at most 8 bytes\n"
      "shop: kind: must be one of town, race\n"
      "shop: gears: is missing\n"
      "shop: sold: must be a whole number from 0 to 9223372036854775807\n"
      "shop: lamp: must be true or false\n"
      "shop: wheels[0].name: must not be empty\n"
      "shop: wheels[0].spokes: must be a whole number from 12 to 48\n"
      "shop: wheels[1]: must be a table\n"
      "shop: front: must be one of rim, disc\n"
      "shop: back: must be one of rim, disc\n"
      "shop: chainrings[0]: must be a whole number from 20 to 60\n"
      "shop: chainrings[1]: must be a whole number from 20 to 60\n"
      "shop: bell: is no known key; known are back, chainrings, front, gears, kilograms, kind, lamp, maker, sold, "
      "wheels");
  EXPECT_EQ(cause(R"({"gears": 2.0})", From::people), "shop: gears: must be a whole number from 1 to 33");
  EXPECT_EQ(cause(R"({"gears": 1, "wheels": [{}, {}, {}]})", From::people), "shop: wheels: has at most 2 entries");
  std::string many = R"({"gears": 1)";
  for (int i = 0; i < 30; ++i) many += ",\"x" + std::to_string(i) + "\": 1";
  EXPECT_TRUE(cause(many + "}", From::people).ends_with("\nand 10 more"));
}

TEST(Fields, OfAPeerTheFirstMistakeIsToldAndWhatItDoesNotKnowIsNone) {
  EXPECT_EQ(cause(R"({"gears": 34, "lamp": 1})", From::peer),
            "shop: field 'gears' must be a whole number from 1 to 33");
  EXPECT_EQ(cause(R"({"wheels": [{"spokes": 20}]})", From::peer), "shop: field 'wheels[0].name' is missing");
  const auto unsure = read(R"({"bell": 1, "gears": 0, "kind": "", "front": "", "wheels": [{"name": ""}]})", From::peer);
  ASSERT_TRUE(unsure) << unsure.error().cause();
  EXPECT_EQ(unsure->gears, 1u);
  EXPECT_EQ(unsure->kind, "town");
  EXPECT_FALSE(unsure->front);
  EXPECT_TRUE(read("{}", From::peer)) << "people must say the gears, a peer need not";
}

TEST(Fields, OfAVmThatExistsADriverSaysWhatItIs) {
  const auto vm = read_fields<VmDescription>(
      boost::json::parse(R"({"name": "web", "generation": 3, "memory_mib": 134217728, "cpus": 0, "firmware": "UEFI"})")
          .as_object(),
      From::peer, "", ControlErrc::driver_protocol);
  ASSERT_TRUE(vm) << vm.error().cause();
  EXPECT_EQ(vm->memory_mib, 134217728u);
  EXPECT_EQ(vm->firmware, "UEFI");
}

TEST(Fields, LinesAreThoseOfTheKeyOrOfTheTableThatLacksIt) {
  Mistakes mistakes(From::people, "x.toml");
  const auto file = parse_toml(
      "maker = \"ours\"\nkind = \"race\"\n\n[[wheels]]\nname = \"front\"\n[[wheels]]\nspokes = 5\n", mistakes);
  ASSERT_TRUE(file);
  Bicycle bicycle;
  const auto done = read_fields(*file, bicycle, mistakes, ControlErrc::bad_file);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().cause(),
            "x.toml:1: gears: is missing\n"
            "x.toml:6: wheels[1].name: is missing\n"
            "x.toml:7: wheels[1].spokes: must be a whole number from 12 to 48");
}

// The log while it lives.
class Log {
 public:
  Log() : before_(spdlog::default_logger()) {
    spdlog::set_default_logger(
        std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(text_, true)));
  }
  ~Log() { spdlog::set_default_logger(before_); }
  std::string text() const { return text_.str(); }

 private:
  std::ostringstream text_;
  std::shared_ptr<spdlog::logger> before_;
};

TEST(Fields, AStoredItemAboveABoundStillOpensCappedAndTheLogSaysSoOnce) {
  const std::string_view stored =
      R"({"id": "old", "transfer": {"lanes": 64, "verify": "full"}, "commit_policy": {"minutes": 0}})";
  Log log;
  for (int i = 0; i < 3; ++i) {
    const auto item = item_from_json(stored);
    ASSERT_TRUE(item) << item.error().cause();
    EXPECT_EQ(item->transfer.lanes, kMaxLanes);
    EXPECT_EQ(item->transfer.verify, VerifyMode::full);
  }
  const auto text = log.text();
  const auto said = text.find("item old: transfer.lanes: 64 is above the bound of 16, which is used instead");
  EXPECT_NE(said, std::string::npos) << text;
  EXPECT_EQ(text.find("transfer.lanes", said + 20), std::string::npos) << text;
}

}  // namespace
}  // namespace backhaul
