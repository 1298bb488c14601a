// What the compiler's checks of kernels call (-fsanitize, see build.go): each ends the kernel with the place in
// the source. The structures are the interface of libubsan, which is not linked.
#include "executor.h"

using namespace emu;

namespace {

struct Location {
  const char *file;
  uint32_t line, column;
};
struct Type {
  uint16_t kind, info;
  char name[1];
};
struct Mismatch {
  Location at;
  const Type *type;
  unsigned char log_alignment, kind;
};
struct Bounds {
  Location at;
  const Type *array, *index;
};

std::string where(const Location &l) {
  const char *base = strrchr(l.file, '/');
  return std::string(base ? base + 1 : l.file) + ":" + std::to_string(l.line);
}

[[noreturn]] void undefined(const Location &l, const char *what) {
  fault(LAUNCH_FAILED, "%s: %s", where(l).c_str(), what);
}

} // namespace

extern "C" {

[[noreturn]] void __ubsan_handle_type_mismatch_v1_abort(const Mismatch *m, uintptr_t address) {
  fault(MISALIGNED_ADDRESS, "%s: %s at 0x%llx, which is no multiple of %u", where(m->at).c_str(), m->type->name,
        static_cast<unsigned long long>(address), 1u << m->log_alignment);
}
[[noreturn]] void __ubsan_handle_out_of_bounds_abort(const Bounds *o, uintptr_t index) {
  fault(ILLEGAL_ADDRESS, "%s: index %lld of an array of type %s", where(o->at).c_str(), static_cast<long long>(index),
        o->array->name);
}
[[noreturn]] void __ubsan_handle_add_overflow_abort(const Location *at, uintptr_t, uintptr_t) {
  undefined(*at, "a sum overflows its signed type");
}
[[noreturn]] void __ubsan_handle_sub_overflow_abort(const Location *at, uintptr_t, uintptr_t) {
  undefined(*at, "a difference overflows its signed type");
}
[[noreturn]] void __ubsan_handle_mul_overflow_abort(const Location *at, uintptr_t, uintptr_t) {
  undefined(*at, "a product overflows its signed type");
}
[[noreturn]] void __ubsan_handle_negate_overflow_abort(const Location *at, uintptr_t) {
  undefined(*at, "a negation overflows its signed type");
}
[[noreturn]] void __ubsan_handle_divrem_overflow_abort(const Location *at, uintptr_t, uintptr_t) {
  undefined(*at, "an integer is divided by zero, or the quotient overflows");
}
[[noreturn]] void __ubsan_handle_shift_out_of_bounds_abort(const Location *at, uintptr_t, uintptr_t) {
  undefined(*at, "a shift by more bits than there are");
}

} // extern "C"
