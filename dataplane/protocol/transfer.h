// What both ends of a transfer agree on: modes, limits, and the shape of an opened session.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "checksum/gmac_hasher.h"
#include "dataplane/disk/disk.h"
#include "transport/frames/frame.h"

namespace backhaul {

enum class SyncMode { delta, full };
enum class VerifyMode { none, written, full };
enum class StagingChoice { automatic, clone, undo };  // what is wished for
// What it became; the numbers stand in journals.
enum class StagingKind : std::uint8_t {
  fresh = 1,      // a new file; the old disk, if any, keeps its name until the swap
  clone,          // a reflink copy, written in place; the old disk keeps its name until the swap
  undo,           // the old disk itself, moved to the staged name, with an undo log
  undo_in_place,  // the same for a block device, which cannot be moved
};
enum class CompareBy { sha256, gmac };

std::string_view to_string(SyncMode mode) noexcept;
std::string_view to_string(VerifyMode mode) noexcept;
std::string_view to_string(StagingChoice choice) noexcept;
std::string_view to_string(StagingKind kind) noexcept;
std::string_view to_string(CompareBy compare) noexcept;
std::optional<SyncMode> parse_sync_mode(std::string_view text) noexcept;
std::optional<VerifyMode> parse_verify_mode(std::string_view text) noexcept;
std::optional<StagingChoice> parse_staging_choice(std::string_view text) noexcept;
std::optional<StagingKind> parse_staging_kind(std::string_view text) noexcept;
std::optional<CompareBy> parse_compare_by(std::string_view text) noexcept;

inline constexpr std::uint32_t kMaxLanes = 16;

// A transfer's fixed memory on the target is two bytes an extent (dataplane/store/digest_index.h): 128 MiB for the
// largest disk. VHDX ends at 64 TiB.
inline constexpr std::uint64_t kMaxDiskSize = 256 * kTiB;

// A lane moves content in chunks of one frame's payload at most.
inline constexpr std::size_t kChunkSize = kMaxPayloadSize;
static_assert(kChunkSize % kBlockSize == 0 && kExtentSize % kChunkSize == 0);

// Memory of one lane: its chunk buffers (12 MiB), two more for compression, and at most kMaxOpenExtents extents of
// about 4.3 KiB each (both ends' digests) = 0.6 MiB, TLS and socket buffers of about 1 MiB: below 16 MiB. With 4 lanes
// 64 MiB, with 16 lanes 256 MiB.
inline constexpr std::uint32_t kLaneBuffers = 12;
inline constexpr unsigned kLaneQueueDepth = 64;
// Extents that a lane has claimed and not yet seen acknowledged: 128 x 4 MiB = 512 MiB of disk, which covers 200 ms of
// round trip at 2.5 GB/s.
inline constexpr std::size_t kMaxOpenExtents = 128;
// The target makes durable and acknowledges after this much was written on a lane, or this long after the first
// extent that waits, whichever is first. Half of the open extents, so that the source never runs dry.
inline constexpr std::size_t kCheckpointExtents = kMaxOpenExtents / 2;
inline constexpr std::chrono::milliseconds kCheckpointDelay{500};
// How far lanes may run ahead of the oldest unacknowledged extent: 65536 x 4 MiB = 256 GiB of disk, about 6 MiB of
// pending digests.
inline constexpr std::uint64_t kMaxRunAheadExtents = 65536;

inline constexpr std::chrono::seconds kConnectTimeout{15};
inline constexpr std::chrono::seconds kSendTimeout{30};             // one message on the control stream
inline constexpr std::chrono::milliseconds kStopPollInterval{200};  // how often a wait looks whether it should stop
inline constexpr std::chrono::seconds kAnswerTimeout{120};          // one answer on the control stream
inline constexpr std::chrono::seconds kLaneIdleTimeout{180};

// The source's wish, in the `open` message.
struct OpenRequest {
  std::string disk;
  std::uint64_t size = 0;  // bytes of the source disk
  SyncMode sync = SyncMode::delta;
  VerifyMode verify = VerifyMode::written;
  StagingChoice staging = StagingChoice::automatic;
  std::optional<DiskFormat> format;  // nothing: keep the disk's, or by the name's ending
  bool changed_only = false;         // only some extents will come; a base is needed
  // Fencing. 0: the target gives the next epoch, if no live run holds the session. Otherwise the epoch that this run
  // held before (it takes over from itself), or one higher than any before (it takes over from anyone).
  std::uint64_t epoch = 0;
  // 0: begin one, or go on with whatever there is. Otherwise go on with this transfer and no other: a run that was cut
  // off must not bring back what was cancelled meanwhile, nor take over another's acknowledgements.
  std::uint64_t transfer = 0;
  // The source wishes to compare by tags under this key, which it made for this run alone. A secret: never logged,
  // never stored.
  std::optional<GmacKey> compare_key;
};

// The target's answer, in the `opened` message.
struct OpenedSession {
  std::string session;         // names the session on lanes
  std::uint64_t epoch = 0;     // of this run; every frame carries it
  std::uint64_t transfer = 0;  // the same for all runs of one transfer
  std::uint64_t size = 0;      // the target disk's size: the source pads to it with zeros (less than one sector)
  DiskFormat format = DiskFormat::raw;
  StagingKind staging = StagingKind::fresh;
  bool had_old_disk = false;
  bool resumed = false;                      // an unfinished transfer goes on
  bool compare = false;                      // the source must ask for digests (delta, or a resumed full)
  bool blank = false;                        // whatever is not sent is zero: the target was made for this run
  CompareBy compare_by = CompareBy::sha256;  // gmac: by tags under the key of the request, which are not recorded
  // The transfer that was asked for has finished under this epoch: nothing is opened, `session` is empty.
  bool finished = false;
  std::string root_digest;  // finished: of the target, hexadecimal; empty when it was not computed
};

struct FinishRequest {
  std::string root_digest;  // of the source, hexadecimal; empty when it computed none
  bool swap = true;         // false: a round ends, the disk stays staged
};
struct FinishResult {
  std::string root_digest;  // of the target, hexadecimal; empty when verification was off
  std::uint64_t blocks_zeroed = 0;
};

enum class TargetState {
  absent,   // no disk, no transfer
  plain,    // a disk, no transfer
  staged,   // a transfer is unfinished; the old disk can be had back
  swapped,  // the new disk has the name, the old one is kept
};
std::string_view to_string(TargetState state) noexcept;
std::optional<TargetState> parse_target_state(std::string_view text) noexcept;
struct TargetStatus {
  TargetState state = TargetState::absent;
  std::uint64_t size = 0;  // virtual; 0 when absent
  DiskFormat format = DiskFormat::raw;
  std::uint64_t epoch = 0;  // the highest on record, also of transfers that ended; 0: none
  bool whole = false;       // staged: the last round has ended, and nothing was written since
  std::string
      root_digest;  // swapped: of the disk, hexadecimal; empty: not verified, or somebody has written to it since
};

}  // namespace backhaul
