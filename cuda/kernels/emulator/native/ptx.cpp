#include "ptx.h"

#include <ctype.h>
#include <stdlib.h>

#include <algorithm>

namespace emu {
namespace {

// newest_isa is the newest PTX that a CUDA version reads, 78 for 7.8 (table "PTX Release History" of the PTX
// manual).
int newest_isa(int cuda) {
  const int major = cuda / 1000, minor = cuda % 1000 / 10;
  if (major < 11) return 65;
  if (major == 11) return 70 + std::min(minor, 8);
  if (major == 12) return 80 + (minor <= 5 ? minor : minor - 1);
  return 90 + minor;
}

struct Parser {
  std::string s; // without comments, lines kept
  size_t at = 0;
  std::string *log;

  Result damaged(size_t where, const std::string &what) {
    const auto line = std::count(s.begin(), s.begin() + long(std::min(where, s.size())), '\n') + 1;
    *log = "ptxas application ptx input, line " + std::to_string(line) + "; fatal   : " + what;
    return INVALID_PTX;
  }
  void space() {
    while (at < s.size() && isspace(static_cast<unsigned char>(s[at]))) at++;
  }
  std::string word() {
    space();
    const size_t from = at;
    while (at < s.size() && (isalnum(static_cast<unsigned char>(s[at])) || strchr("._$%", s[at]))) at++;
    return s.substr(from, at - from);
  }
  bool take(char c) {
    space();
    if (at >= s.size() || s[at] != c) return false;
    at++;
    return true;
  }
};

void blank_comments(std::string *s) {
  for (size_t i = 0; i + 1 < s->size(); i++) {
    if ((*s)[i] != '/') continue;
    if ((*s)[i + 1] == '/') {
      for (; i < s->size() && (*s)[i] != '\n'; i++) (*s)[i] = ' ';
    } else if ((*s)[i + 1] == '*') {
      for (; i < s->size() && !((*s)[i] == '*' && i + 1 < s->size() && (*s)[i + 1] == '/'); i++)
        if ((*s)[i] != '\n') (*s)[i] = ' ';
      if (i + 1 < s->size()) (*s)[i] = (*s)[i + 1] = ' ';
    }
  }
}

uint32_t type_bytes(const std::string &type) {
  if (type.size() < 3 || !strchr("usfb", type[1])) return 0;
  const int bits = atoi(type.c_str() + 2);
  return bits == 8 || bits == 16 || bits == 32 || bits == 64 ? uint32_t(bits / 8) : 0;
}

Result parameters(Parser *p, PtxEntry *e) {
  if (!p->take('(')) return SUCCESS;
  if (p->take(')')) return SUCCESS;
  do {
    if (p->word() != ".param") return p->damaged(p->at, "Parsing error: .param expected");
    uint32_t bytes = 0;
    std::string name;
    for (;;) {
      const std::string w = p->word();
      if (w == ".align") {
        p->word();
      } else if (!w.empty() && w[0] == '.') {
        if (const uint32_t b = type_bytes(w)) bytes = b; // .ptr, .global and the like say nothing of the size
      } else {
        name = w;
        break;
      }
    }
    if (name.empty() || bytes == 0) return p->damaged(p->at, "Parsing error in the parameters");
    if (p->take('[')) {
      bytes *= uint32_t(atoi(p->word().c_str()));
      if (!p->take(']')) return p->damaged(p->at, "Parsing error: ']' expected");
    }
    e->sizes.push_back(bytes);
  } while (p->take(','));
  return p->take(')') ? SUCCESS : p->damaged(p->at, "Parsing error: ')' expected");
}

// body looks at the shape of a function's statements.
Result body(Parser *p, const std::string &name) {
  if (!p->take('{')) return p->damaged(p->at, "Parsing error: '{' expected after " + name);
  int depth = 1, open = 0;
  bool start = true;
  for (; p->at < p->s.size(); p->at++) {
    const char c = p->s[p->at];
    if (isspace(static_cast<unsigned char>(c))) continue;
    if (start && !isalpha(static_cast<unsigned char>(c)) && !strchr(".$@{}_%", c))
      return p->damaged(p->at, std::string("Parsing error near '") + c + "': syntax error");
    const bool statement = start; // a brace here opens a block, elsewhere a vector of operands
    start = false;
    switch (c) {
    case ';':
      if (open != 0) return p->damaged(p->at, "Parsing error near ';': syntax error");
      start = true;
      break;
    case '{':
      if (statement) {
        depth++;
        start = true;
        break;
      }
      open++;
      break;
    case '(':
    case '[': open++; break;
    case '}':
      if (open == 0) {
        if (--depth == 0) {
          p->at++;
          return SUCCESS;
        }
        start = true;
        break;
      }
      open--;
      break;
    case ')':
    case ']':
      if (--open < 0) return p->damaged(p->at, std::string("Parsing error near '") + c + "': syntax error");
      break;
    case ':': start = open == 0; break;
    }
  }
  return p->damaged(p->at, "Parsing error: the image ends inside " + name + (depth ? "" : "?"));
}

} // namespace

Result parse_ptx(const std::string &text, int cuda, int capability, Ptx *out, std::string *log) {
  Parser p;
  p.log = log;
  if (text.compare(0, 4, "\177ELF") == 0 || text.compare(0, 4, "\x50\xed\x55\xba") == 0) {
    *log = "a cubin or fatbin; the emulator takes PTX";
    return INVALID_IMAGE;
  }
  for (size_t i = 0; i < text.size(); i++)
    if (!isprint(static_cast<unsigned char>(text[i])) && !isspace(static_cast<unsigned char>(text[i]))) {
      p.s = text.substr(0, i);
      return p.damaged(i, "Unexpected non-ASCII character encountered");
    }
  p.s = text;
  blank_comments(&p.s);

  if (p.word() != ".version") return p.damaged(p.at, "Missing .version directive at start of file");
  const std::string version = p.word();
  int major = 0, minor = 0;
  char rest;
  if (sscanf(version.c_str(), "%d.%d%c", &major, &minor, &rest) != 2)
    return p.damaged(p.at, "Parsing error: a version such as 7.8 expected");
  if (major * 10 + minor > newest_isa(cuda)) {
    const int newest = newest_isa(cuda);
    *log = "ptxas application ptx input; fatal   : Unsupported .version " + version + "; current version is '" +
           std::to_string(newest / 10) + "." + std::to_string(newest % 10) + "'";
    return UNSUPPORTED_PTX_VERSION;
  }
  if (p.word() != ".target") return p.damaged(p.at, "Missing .target directive");
  const std::string target = p.word();
  int arch = 0;
  if (sscanf(target.c_str(), "sm_%d", &arch) != 1)
    return p.damaged(p.at, "Parsing error: a target such as sm_75 expected");
  while (p.take(',')) p.word();
  if (arch > capability) {
    *log = "the image is for " + target + ", the device is sm_" + std::to_string(capability);
    return NO_BINARY_FOR_GPU;
  }

  while (p.space(), p.at < p.s.size()) {
    const size_t from = p.at;
    const std::string w = p.word();
    if (w.empty() || w[0] != '.')
      return p.damaged(from, std::string("Parsing error near '") + p.s[from] + "': syntax error");
    if (w == ".address_size") {
      if (p.word() != "64") return p.damaged(from, "the address size is not 64");
    } else if (w == ".entry") {
      const std::string name = p.word();
      if (name.empty()) return p.damaged(p.at, "Parsing error: a name expected after .entry");
      PtxEntry e;
      if (Result r = parameters(&p, &e)) return r;
      for (;;) { // performance directives
        const std::string d = p.word();
        if (d.empty()) break;
        uint32_t product = 1;
        do product *= uint32_t(std::max(1, atoi(p.word().c_str())));
        while (p.take(','));
        if (d == ".maxntid" || d == ".reqntid") e.threads = product;
      }
      if (Result r = body(&p, name)) return r;
      if (!out->entries.emplace(name, e).second)
        return p.damaged(from, "Duplicate definition of function '" + name + "'");
    } else if (w == ".func") {
      while (p.at < p.s.size() && p.s[p.at] != '{' && p.s[p.at] != ';') p.at++;
      if (p.take(';')) continue; // a declaration
      if (Result r = body(&p, "a function")) return r;
    } else if (w != ".visible" && w != ".weak" &&
               w != ".extern") { // a variable or the like: up to its semicolon, or a section in braces
      while (p.at < p.s.size() && p.s[p.at] != ';' && p.s[p.at] != '\n' && p.s[p.at] != '{') p.at++;
      if (p.at < p.s.size() && p.s[p.at] == '{') {
        while (p.at < p.s.size() && p.s[p.at] != '}') p.at++;
        if (!p.take('}')) return p.damaged(p.at, "Parsing error: '}' expected");
        p.take(';');
      } else if (p.at < p.s.size()) {
        p.at++;
      }
    }
  }
  return SUCCESS;
}

} // namespace emu
