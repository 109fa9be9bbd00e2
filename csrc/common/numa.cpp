#include "common/numa.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string_view>
#include <system_error>

#include <sched.h>

#include "common/env.h"
#include "common/error.h"
#include "common/own_threads.h"

namespace trimoe {
namespace {

std::optional<int> number_in(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// "0-3,8" as Linux writes it.
std::vector<int> parse_cpu_list(const std::string& text) {
  std::vector<int> cpus;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view range(text.data() + begin, end - begin);
    const size_t dash = range.find('-');
    const auto first = number_in(range.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : number_in(range.substr(dash + 1));
    if (first && last)
      for (int cpu = *first; cpu <= *last; ++cpu) cpus.push_back(cpu);
    begin = end + 1;
  }
  return cpus;
}

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  std::vector<int> cpus;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return cpus;  // more CPUs than a set holds
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  return cpus;
}

std::vector<NumaNode> probe() {
  const std::vector<int> allowed = allowed_cpus();
  const std::string fake = env::numa_fake();
  if (fake.empty()) return read_numa_nodes("/sys/devices/system/node", allowed);
  const int nodes = number_in(fake).value_or(0);
  check(nodes >= 1, "a number of nodes in TRIMOE_NUMA_FAKE", fake, "2, or unsetting it");
  return split_into_nodes(allowed, nodes);
}

void run_on(const NumaNode& node) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int cpu : node.cpus) CPU_SET(static_cast<size_t>(cpu), &set);
  // Refused: then it runs anywhere, and memory lies elsewhere; nothing else changes.
  static_cast<void>(::sched_setaffinity(0, sizeof set, &set));
}

}  // namespace

std::vector<NumaNode> read_numa_nodes(const std::string& folder, const std::vector<int>& allowed) {
  std::map<int, NumaNode> found;
  std::error_code ignored;  // no folder: one node
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    const auto number = name.starts_with("node") ? number_in(std::string_view(name).substr(4)) : std::nullopt;
    if (!number) continue;
    std::ifstream file(entry.path() / "cpulist");
    std::string text;
    std::getline(file, text);
    NumaNode node;
    for (int cpu : parse_cpu_list(text))
      if (std::ranges::find(allowed, cpu) != allowed.end()) node.cpus.push_back(cpu);
    if (!node.cpus.empty()) found.emplace(*number, std::move(node));
  }
  std::vector<NumaNode> nodes;
  for (auto& [number, node] : found)
    if (std::ssize(nodes) < kMaxNodes) nodes.push_back(std::move(node));
  if (nodes.empty()) nodes.push_back({allowed});
  return nodes;
}

std::vector<NumaNode> split_into_nodes(const std::vector<int>& allowed, int nodes) {
  const auto most = std::clamp<size_t>(allowed.size(), 1, kMaxNodes);
  const size_t count = std::min(static_cast<size_t>(nodes), most);
  std::vector<NumaNode> result(count);
  for (size_t i = 0; i < allowed.size(); ++i) result[i * count / allowed.size()].cpus.push_back(allowed[i]);
  return result;
}

const std::vector<NumaNode>& numa_nodes() {
  static const std::vector<NumaNode> nodes = probe();
  return nodes;
}

int this_node() {
  const auto& nodes = numa_nodes();
  if (nodes.size() == 1) return 0;
  static const std::vector<int> node_of_cpu = [&] {
    std::vector<int> table;
    for (size_t node = 0; node < nodes.size(); ++node)
      for (int cpu : nodes[node].cpus) {
        table.resize(std::max(table.size(), static_cast<size_t>(cpu) + 1));
        table[static_cast<size_t>(cpu)] = static_cast<int>(node);
      }
    return table;
  }();
  const auto cpu = static_cast<size_t>(std::max(::sched_getcpu(), 0));
  return cpu < node_of_cpu.size() ? node_of_cpu[cpu] : 0;
}

void on_each_node(const std::function<void(int node)>& body) {
  const auto& nodes = numa_nodes();
  // The first thread is the caller's, whose CPUs stay as they are.
  on_own_threads(static_cast<int>(nodes.size()) + 1, [&](int thread) {
    if (thread == 0) return;
    run_on(nodes[static_cast<size_t>(thread) - 1]);
    body(thread - 1);
  });
}

}  // namespace trimoe
