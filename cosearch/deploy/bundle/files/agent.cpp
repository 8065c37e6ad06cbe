// Runs the agent of this folder with ONNX Runtime's C++ interface: what it takes and how to act on it is read from the ONNX file.
// It has one thread, also where the contract says that the agent's latency is of several.
//
// Build (headers and library of a release of ONNX Runtime, 1.12 or newer, in ORT):
//   g++ -O2 -std=c++17 agent.cpp -I$ORT/include -L$ORT/lib -lonnxruntime -Wl,-rpath,$ORT/lib -o agent
// Run the stored observations; exit code 0, or 1 and one line that says why:
//   ./agent agent.onnx self_test
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

// One entry of the contract in the file; each value is JSON: text in quotes, a number, or a list of either.
struct Entry {
  std::string json;
  std::vector<std::string> list() const {
    std::vector<std::string> items;
    std::string inner = json.size() > 1 && json.front() == '[' ? json.substr(1, json.size() - 2) : json, item;
    for (std::istringstream parts(inner); std::getline(parts, item, ',');) items.push_back(plain(item));
    return items;
  }
  std::string text() const { return plain(json); }
  double number() const { return std::stod(json); }
  static std::string plain(std::string word) {
    const char* around = " \"";
    size_t begin = word.find_first_not_of(around), end = word.find_last_not_of(around);
    return begin == std::string::npos ? "" : word.substr(begin, end - begin + 1);
  }
};

class Agent {
 public:
  explicit Agent(const char* path) : environment_(quiet_environment()), session_(environment_, path, options()) {
    period_s = entry("period_s").number();
    tolerance = entry("tolerance").number();
    uint8 = entry("input_dtype").text() == "uint8";
    input_ = entry("input_name").text();
    outputs = entry("output_names").list();
    discrete = entry("policy").text() == "categorical";
    shape_ = {1};
    auto sizes = entry("input_shape").list();
    for (size_t i = 1; i < sizes.size(); ++i) shape_.push_back(std::stoll(sizes[i]));
    for (int64_t size : shape_) elements *= size_t(size);
    noise_ = entry("noise_input").text();
    zeros_.assign(size_t(entry("noise_size").number()), 0.0f);
    memory_ = entry("memory_input", true).text();
    if (!memory_.empty()) {
      next_memory_ = entry("memory_output").text();
      for (const auto& number : entry("memory_initial").list()) initial_.push_back(std::stof(number));
    }
    reset();
    bytes = elements * (uint8 ? 1 : sizeof(float));
  }

  // Begin an episode: what the agent remembers of the one before is cleared.
  void reset() { remembered = initial_; }
  bool has_memory() const { return !memory_.empty(); }

  Entry entry(const char* key, bool optional = false) {  // through the C interface, which is the same in old and new releases
    Ort::ModelMetadata metadata = session_.GetModelMetadata();
    Ort::AllocatorWithDefaultOptions allocator;
    char* value = nullptr;
    Ort::ThrowOnError(Ort::GetApi().ModelMetadataLookupCustomMetadataMap(metadata, allocator, key, &value));
    if (!value && optional) return Entry{};
    if (!value) throw std::runtime_error(std::string("the file has no contract: no entry ") + key);
    Entry found{value};
    allocator.Free(value);
    return found;
  }

  // All outputs for one observation: uint8 [height, width, channels] or float32 [features], contiguous.
  std::vector<Ort::Value> run(void* observation) {
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    auto type = uint8 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    std::vector<Ort::Value> values;
    values.push_back(Ort::Value::CreateTensor(memory, observation, bytes, shape_.data(), shape_.size(), type));
    std::vector<const char*> in{input_.c_str()}, out;
    for (const auto& name : outputs) out.push_back(name.c_str());
    int64_t size[] = {1, int64_t(zeros_.size())};
    if (!noise_.empty()) {  // fill it with random numbers to sample: uniform in [0, 1) for discrete actions, else standard normal
      in.push_back(noise_.c_str());
      values.push_back(Ort::Value::CreateTensor<float>(memory, zeros_.data(), zeros_.size(), size, 2));
    }
    int64_t kept[] = {1, int64_t(remembered.size())};
    if (has_memory()) {
      in.push_back(memory_.c_str());
      values.push_back(Ort::Value::CreateTensor<float>(memory, remembered.data(), remembered.size(), kept, 2));
    }
    auto found = session_.Run(Ort::RunOptions{nullptr}, in.data(), values.data(), in.size(), out.data(), out.size());
    if (has_memory()) {  // carried to the next call
      const float* next = found[index(next_memory_)].GetTensorData<float>();
      remembered.assign(next, next + remembered.size());
    }
    return found;
  }

  // The most likely action of an agent with discrete actions, as the environment numbers it.
  long greedy(const std::vector<Ort::Value>& found) {
    const float* logits = found[index("logits")].GetTensorData<float>();
    size_t count = found[index("logits")].GetTensorTypeAndShapeInfo().GetElementCount();
    return long(std::max_element(logits, logits + count) - logits) + long(entry("first_action").number());
  }

  size_t index(const std::string& name) const { return size_t(std::find(outputs.begin(), outputs.end(), name) - outputs.begin()); }

  double period_s = 0, tolerance = 0;
  bool uint8 = false, discrete = false;
  size_t elements = 1, bytes = 0;
  std::vector<std::string> outputs;
  std::vector<float> remembered;  // what the agent carries; to act twice on one moment, put it back in between

 private:
  static Ort::Env quiet_environment() {
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);  // before the runtime begins
    return Ort::Env(ORT_LOGGING_LEVEL_ERROR, "agent");
  }
  static Ort::SessionOptions options() {
    Ort::SessionOptions chosen;
    chosen.SetIntraOpNumThreads(1);
    chosen.SetInterOpNumThreads(1);
    chosen.AddConfigEntry("session.intra_op.allow_spinning", "0");  // idle threads sleep: the control loop needs the cores
    return chosen;
  }
  Ort::Env environment_;
  Ort::Session session_;
  std::string input_, noise_, memory_, next_memory_;
  std::vector<int64_t> shape_;
  std::vector<float> zeros_, initial_;
};

// The numbers in a .npy file, without its header (version 1: the header's length is in bytes 8 and 9).
std::vector<char> load(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (all.size() < 10 || std::memcmp(all.data(), "\x93NUMPY", 6)) throw std::runtime_error(path + " cannot be read");
  size_t header = 10 + (uint8_t(all[8]) | uint8_t(all[9]) << 8);
  return {all.begin() + long(header), all.end()};
}

int main(int count, char** words) try {
  if (count != 3) throw std::runtime_error("usage: agent agent.onnx self_test");
  Agent agent(words[1]);
  std::string folder = std::string(words[2]) + "/";
  auto observations = load(folder + "observations.npy"), actions = load(folder + "actions.npy");
  size_t stored = observations.size() / agent.bytes;
  std::vector<char> begins(stored, 1);  // which observations are the first of an episode
  if (agent.has_memory()) begins = load(folder + "begins.npy");
  double worst = 0, took_s = 0;
  for (const auto& name : agent.entry("stored_outputs").list()) {
    auto raw = load(folder + name + ".npy");
    auto expected = reinterpret_cast<const float*>(raw.data());
    size_t each = raw.size() / sizeof(float) / stored;
    double size = 1;
    for (size_t i = 0; i < stored * each; ++i) size = std::max(size, double(std::fabs(expected[i])));
    for (size_t i = 0; i < stored; ++i) {
      if (i == 0 || begins[i]) agent.reset();
      auto begin = std::chrono::steady_clock::now();
      auto found = agent.run(observations.data() + i * agent.bytes);
      took_s += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      const float* value = found[agent.index(name)].GetTensorData<float>();
      for (size_t k = 0; k < each; ++k) {
        double differs = std::fabs(value[k] - expected[i * each + k]) / size;
        if (!(differs <= agent.tolerance))  // also true for NaN, which std::max would drop
          throw std::runtime_error("observation " + std::to_string(i) + ": " + name + " differs");
        worst = std::max(worst, differs);
      }
      int64_t action = 0;
      if (agent.discrete) std::memcpy(&action, actions.data() + i * sizeof(action), sizeof(action));
      if (agent.discrete && agent.greedy(found) != action) std::printf("observation %zu: another greedy action\n", i);
    }
  }
  size_t calls = stored * agent.entry("stored_outputs").list().size();
  std::printf("ok: %zu observations, outputs differ by at most %.2g of their size (allowed %g), %.1f us a call\n", stored, worst,
              agent.tolerance, took_s / double(calls) * 1e6);
  // A control loop: absolute moments, so that errors do not add up; a call just before each one keeps the caches warm.
  auto due = std::chrono::steady_clock::now();
  for (int step = 0; step < 3; ++step) {
    due += std::chrono::duration_cast<std::chrono::steady_clock::duration>(std::chrono::duration<double>(agent.period_s));
    std::this_thread::sleep_until(due - std::chrono::milliseconds(1));
    auto before = agent.remembered;
    agent.run(observations.data());
    agent.remembered = before;
    while (std::chrono::steady_clock::now() < due) {
    }
    agent.run(observations.data());  // the observation of this moment
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
