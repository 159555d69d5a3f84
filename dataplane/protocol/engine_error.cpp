#include "dataplane/protocol/engine_error.h"

namespace backhaul {
namespace {

constexpr ErrorInfo kTable[] = {
    {"session.busy", "another run is writing to this disk", "Wait for it to end, or cancel it with `backhaul cancel`.",
     Retry::later},
    {"session.fenced", "a newer run took over this transfer", "Leave it to the newer run.", Retry::no},
    {"session.cancelled", "the transfer was cancelled", "Start it again when wanted; the old disk is back.", Retry::no},
    {"session.unknown", "the host agent does not know this transfer",
     "Run the same command again: it goes on where it stopped.", Retry::later},
    {"session.mismatch", "an unfinished transfer of this disk was started with other parameters",
     "Go on with the first parameters, or give it up with `backhaul cancel`.", Retry::no},
    {"session.damaged", "what an unfinished transfer left cannot be read",
     "Nothing was changed. Keep the session directory beside the disk and report it; restore the disk from a backup if "
     "it is missing.",
     Retry::no},
    {"target.too_small", "the target disk is smaller than the source",
     "Give another name, or remove the target disk if it is the wrong one.", Retry::no},
    {"target.size_differs", "the target disk has another size than the source",
     "Give another name, or remove the target disk if it is the wrong one.", Retry::no},
    {"target.format_differs", "the target disk has another format",
     "Leave out --format to keep the disk's format, or use --sync full to replace it.", Retry::no},
    {"target.no_base", "there is no target disk that the changed extents could be applied to",
     "Send the whole disk first, without --changed.", Retry::no},
    {"target.bad_name", "the disk name is not allowed",
     "Use a relative path below the store whose parts do not start with a dot.", Retry::no},
    {"source.read_failed", "the source disk could not be read",
     "Repair or replace the source device; the same command then goes on where it stopped.", Retry::no},
    {"verify.block_differs", "what was read back from the target differs from what was sent",
     "Check the target's storage and memory. The old disk is safe: cancel, or run the same command again.", Retry::no},
    {"verify.root_differs", "the disks of both ends differ after the transfer",
     "The target was not swapped in. Run the same command again with --verify full; check both ends' storage.",
     Retry::no},
    {"source.bad_extents", "the changed-extents file cannot be used",
     "Give JSON: {\"extents\":[{\"offset\":0,\"length\":65536}]} with ranges inside the disk.", Retry::no},
    {"session.incomplete", "the transfer was to be finished, but parts of the disk were never acknowledged",
     "Run the same command again: it sends what is missing.", Retry::later},
    {"target.bad_url", "the target is not of the form backhaul://HOST:PORT/DISK",
     "Correct the target and run the command again.", Retry::no},
    {"session.kept", "the disk was swapped in and its old content is still kept",
     "Release the old content, or cancel to have it back; then send again.", Retry::no},
    {"session.not_staged", "there is no staged disk to swap in", "Send the disk first.", Retry::no},
    {"session.kept_changed", "the disk was written to since it was swapped in: its old content cannot be had back",
     "Release the old content. The disk is whole and stays as it is.", Retry::no},
    {"offer.unknown", "no send expects streams of this name from this node",
     "Start the send at the other end; check that both ends use the same name.", Retry::later},
    {"offer.full", "enough streams of this name wait already",
     "None is needed: they are taken when the send wants them.", Retry::later},
    {"offer.none", "the receiving end offered no stream in time",
     "Check that the receiving end runs, reaches this node and uses the same name.", Retry::later},
    {"offer.withdrawn", "the receiving end's streams are no longer wanted", "Start the send again.", Retry::no},
};

}  // namespace

const ErrorCategory& engine_category() noexcept {
  static const TableCategory category("engine", kTable);
  return category;
}

}  // namespace backhaul
