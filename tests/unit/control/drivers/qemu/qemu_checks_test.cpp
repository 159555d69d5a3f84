#include "control/drivers/qemu/qemu_checks.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

namespace backhaul {
namespace {

TEST(QemuChoice, IsTheConfiguredWordWhereTheItemSaysNothing) {
  EXPECT_EQ(qemu_choice({{"other", 1}}, "disk_bus", "virtio", kQemuDiskBuses).value(), "virtio");
}

TEST(QemuChoice, IsTheItemsWordWhereItIsOneOfThem) {
  for (const char* word : {"virtio", "scsi", "ide"})
    EXPECT_EQ(qemu_choice({{"disk_bus", word}, {"other", 1}}, "disk_bus", "virtio", kQemuDiskBuses).value(), word);
}

TEST(QemuChoice, RefusesWhatIsNoneOfThemByName) {
  for (const boost::json::value& wrong :
       {boost::json::value("floppy"), boost::json::value(""), boost::json::value(nullptr), boost::json::value(1),
        boost::json::value("virtio, scsi")}) {
    const auto chosen = qemu_choice({{"disk_bus", wrong}}, "disk_bus", "virtio", kQemuDiskBuses);
    ASSERT_FALSE(chosen) << wrong;
    EXPECT_TRUE(chosen.error().is(BaseErrc::invalid_argument));
    EXPECT_NE(chosen.error().cause().find("disk_bus"), std::string::npos) << chosen.error().to_string();
  }
}

}  // namespace
}  // namespace backhaul
