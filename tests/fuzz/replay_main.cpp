// Runs a fuzzer without libFuzzer: every file of the corpus folders named on the command line, then a fixed
// number of mutations under a printed seed. BACKHAUL_SEED replays a failure.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

std::vector<std::uint8_t> read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void mutate(std::vector<std::uint8_t>& input, std::mt19937_64& random) {
  if (input.empty()) input.resize(1 + random() % 256);
  for (auto edits = 1 + random() % 8; edits > 0; --edits) {
    auto& byte = input[random() % input.size()];
    switch (random() % 3) {
      case 0: byte = static_cast<std::uint8_t>(random()); break;
      case 1: byte ^= static_cast<std::uint8_t>(1U << (random() % 8)); break;
      default: byte = random() % 2 == 0 ? 0 : 0xFF;
    }
  }
  if (random() % 8 == 0) input.resize(random() % (input.size() + 1));
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::vector<std::uint8_t>> corpus;
  for (int i = 1; i < argc; ++i) {
    if (!std::filesystem::is_directory(argv[i])) continue;
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(argv[i]))
      if (entry.is_regular_file()) files.push_back(entry.path());
    std::sort(files.begin(), files.end());  // a seed means the same in every clone
    for (const auto& file : files) corpus.push_back(read_file(file));
  }
  for (const auto& input : corpus) LLVMFuzzerTestOneInput(input.data(), input.size());
  const char* given = std::getenv("BACKHAUL_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  std::printf("%zu corpus files, BACKHAUL_SEED=%llu\n", corpus.size(), static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  std::mt19937_64 random(seed);
  if (corpus.empty()) corpus.emplace_back();
  for (int i = 0; i < 500; ++i) {
    auto input = corpus[random() % corpus.size()];
    mutate(input, random);
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  return 0;
}
