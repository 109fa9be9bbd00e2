// The nodes of the machine: groups of CPUs, each with memory of its own.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace trimoe {

struct NumaNode {
  std::vector<int> cpus;  // that this process may run on
};

inline constexpr int kMaxNodes = 32;  // CPUs of later ones count as the first one's

// The nodes that have CPUs for this process, in the system's order, at least one. Probed once.
// TRIMOE_NUMA_FAKE replaces what the system says (see common/env.h).
const std::vector<NumaNode>& numa_nodes();

// The same of a folder like /sys/devices/system/node, for a process that may run on `allowed`.
std::vector<NumaNode> read_numa_nodes(const std::string& folder, const std::vector<int>& allowed);

// `allowed` in as many nodes as asked for, as far as there are CPUs, in pieces of nearly equal size.
std::vector<NumaNode> split_into_nodes(const std::vector<int>& allowed, int nodes);

// Index among numa_nodes() of the node that the calling thread runs on now.
int this_node();

// Calls body(node) for every node, each on a thread of its own that runs on that node alone.
void on_each_node(const std::function<void(int node)>& body);

}  // namespace trimoe
