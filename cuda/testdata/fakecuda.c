// A libcuda.so.1 for the tests of Probe. Macros choose how it behaves:
//   INIT     what cuInit returns (0)          VERSION  the driver's CUDA version (12040)
//   DEVICES  how many devices (1)             MAJOR, MINOR  their compute capability (7, 5)
//   COUNT    what cuDeviceGetCount returns (0)
//   NAMECODE what cuDeviceGetName returns (0) LACKS_NAME  leaves cuDeviceGetName out
#include <stddef.h>
#include <string.h>
#ifndef INIT
#define INIT 0
#endif
#ifndef VERSION
#define VERSION 12040
#endif
#ifndef DEVICES
#define DEVICES 1
#endif
#ifndef MAJOR
#define MAJOR 7
#define MINOR 5
#endif
#ifndef COUNT
#define COUNT 0
#endif
#ifndef NAMECODE
#define NAMECODE 0
#endif

static int ready;

int cuInit(unsigned flags) {
	if (flags) return 1;
	if (INIT) return INIT;
	ready = 1;
	return 0;
}
int cuDriverGetVersion(int *v) { *v = VERSION; return 0; }
int cuDeviceGetCount(int *n) {
	if (!ready) return 3; // CUDA_ERROR_NOT_INITIALIZED
	*n = DEVICES;
	return COUNT;
}
int cuDeviceGet(int *dev, int ordinal) {
	if (!ready) return 3;
	if (ordinal < 0 || ordinal >= DEVICES) return 101;
	*dev = 40 + ordinal; // a handle is not an ordinal
	return 0;
}
#ifndef LACKS_NAME
int cuDeviceGetName(char *name, int len, int dev) {
	if (dev < 40 || dev >= 40 + DEVICES) return 101;
	strncpy(name, "Fake RTX 2060", (size_t)len);
	return NAMECODE;
}
#endif
int cuDeviceTotalMem_v2(size_t *bytes, int dev) {
	if (dev < 40 || dev >= 40 + DEVICES) return 101;
	*bytes = (size_t)6 << 30; // more than 32 bits hold
	return 0;
}
int cuDeviceGetAttribute(int *v, int attribute, int dev) {
	if (dev < 40 || dev >= 40 + DEVICES) return 101;
	switch (attribute) {
	case 16: *v = 30; return 0;
	case 75: *v = MAJOR; return 0;
	case 76: *v = MINOR; return 0;
	}
	return 1;
}
