// How work and weights are spread over nodes: every task once, a node's own first; every panel once; what
// Linux says about nodes, read right. TRIMOE_NUMA_FAKE says how many nodes this machine has.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <string>

#include <sched.h>
#include <sys/mman.h>

#include "common/numa.h"
#include "common/own_threads.h"
#include "packed/layer.h"

using namespace trimoe;

namespace {

int failures = 0;

void expect(bool ok, const std::string& what) {
  if (ok) return;
  ++failures;
  std::printf("FAIL %s\n", what.c_str());
}

void check_queue() {
  for (int nodes = 1; nodes <= 5; ++nodes)
    for (int64_t width = 1; width <= 12; ++width)
      for (int64_t rows : {1, 3}) {
        const std::string what = "queue of " + std::to_string(rows) + " x " + std::to_string(width) +
                                 " tasks, " + std::to_string(nodes) + " nodes";
        const NodeShares shares{rows * width, width, nodes};
        for (int home = 0; home < nodes; ++home) {
          TaskQueue queue(shares);
          std::set<int64_t> seen;
          bool own = true;
          for (int64_t task = queue.take(home); task < shares.tasks; task = queue.take(home)) {
            expect(task >= 0 && seen.insert(task).second, what + ": a task twice");
            const int64_t column = task % width;
            const bool is_own = column >= home * width / nodes && column < (home + 1) * width / nodes;
            expect(own || !is_own, what + ": an own task after another node's");
            own = is_own;
          }
          expect(std::ssize(seen) == shares.tasks, what + ": a task never");
        }
      }
}

void check_parallel_tasks() {
  for (int workers : {1, 2, 5})
    for (int64_t tasks : {0, 8, 96}) {
      std::map<int64_t, int> runs;
      std::mutex mutex;
      parallel_tasks(
          OwnThreads(workers), workers, tasks,
          [&](int64_t task, int64_t next) {
            const std::lock_guard lock(mutex);
            ++runs[task];
            expect(next > 0 && next <= tasks, "the task after " + std::to_string(task));
          },
          8);
      bool once = std::ssize(runs) == tasks;
      for (const auto& [task, times] : runs) once = once && times == 1;
      expect(once, std::to_string(tasks) + " tasks, each once, by " + std::to_string(workers) + " workers");
    }
}

void check_reading() {
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "trimoe_numa_check";
  std::filesystem::remove_all(folder);
  const auto write = [&](const char* node, const char* cpus) {
    std::filesystem::create_directories(folder / node);
    std::ofstream(folder / node / "cpulist") << cpus << "\n";
  };
  write("node0", "0-2,8");
  write("node1", "3,9-10");
  write("node2", "");  // memory without CPUs
  write("node10", "4-5");
  write("node3", "6-7");
  std::ofstream(folder / "possible") << "0-10\n";
  const auto nodes = read_numa_nodes(folder, {0, 1, 2, 3, 4, 8, 9});
  const std::vector<std::vector<int>> expected{{0, 1, 2, 8}, {3, 9}, {4}};
  expect(nodes.size() == expected.size(), "nodes with CPUs that may be used");
  for (size_t i = 0; i < nodes.size() && i < expected.size(); ++i)
    expect(nodes[i].cpus == expected[i], "CPUs of the node at " + std::to_string(i));
  std::filesystem::remove_all(folder);
  const auto none = read_numa_nodes(folder, {0, 1});
  expect(none.size() == 1 && none[0].cpus == std::vector<int>{0, 1}, "no folder: one node");
}

void check_splitting() {
  const auto nodes = split_into_nodes({0, 1, 2, 3, 4}, 2);
  expect(nodes.size() == 2 && nodes[0].cpus.size() + nodes[1].cpus.size() == 5, "five CPUs in two nodes");
  expect(split_into_nodes({7}, 4).size() == 1, "no node without CPUs");
}

void check_each_node() {
  std::mutex mutex;
  std::set<int> seen;
  on_each_node([&](int node) {
    const std::lock_guard lock(mutex);
    expect(seen.insert(node).second, "a node twice");
    expect(this_node() == node, "on the CPUs of node " + std::to_string(node));
  });
  expect(seen.size() == numa_nodes().size(), "every node");
}

// Pages of fresh memory that are there, and that all of it is still zero.
void check_placing() {
  LayerShape shape;
  shape.experts = 3;
  shape.hidden = 700;
  shape.inter = 300;
  shape.weights = Format::kBf16;
  const Layer layer(shape);
  const auto bytes = static_cast<size_t>(shape.layer_bytes());
  std::vector<unsigned char> there(bytes / 4096);
  expect(mincore(const_cast<std::byte*>(layer.data()), there.size() * 4096, there.data()) == 0, "mincore");
  size_t count = 0;
  for (unsigned char page : there) count += page & 1;
  const bool placed = numa_nodes().size() > 1;
  expect(placed ? count + 1 >= there.size() : count == 0,
         std::to_string(count) + " of " + std::to_string(there.size()) + " pages there before packing");
  bool zero = true;
  for (size_t i = 0; i < bytes; ++i) zero = zero && layer.data()[i] == std::byte{0};
  expect(zero, "memory still zero");
}

}  // namespace

int main() {
  check_queue();
  check_parallel_tasks();
  check_reading();
  check_splitting();
  check_each_node();
  check_placing();
  std::printf("%zu nodes, %d failures\n", numa_nodes().size(), failures);
  return failures ? 1 : 0;
}
