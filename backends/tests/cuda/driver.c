/* A CUDA driver of no GPU, for `cuda.rs`: it answers as a GPU of one kind would, gives out host memory, keeps every module that is loaded,
   and runs nothing. FAKE_CUDA_SM is the kind, such as 90; FAKE_CUDA_OUT the folder for modules (`N.ptx`) and for `launches`, a line a
   launch: module, function, units of a cube, bytes of shared memory. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int result;
enum { OUT_OF_MEMORY = 2 };

static int sm(void) { return atoi(getenv("FAKE_CUDA_SM")); }

static FILE *file(const char *name, const char *mode) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("FAKE_CUDA_OUT"), name);
    FILE *f = fopen(path, mode);
    if (!f) abort();
    return f;
}

result cuInit(unsigned flags) { return 0; }
result cuDriverGetVersion(int *version) { *version = 12080; return 0; }
result cuDeviceGetCount(int *count) { *count = 1; return 0; }
result cuDeviceGet(int *device, int index) { *device = index; return index ? 101 : 0; }
result cuDeviceGetName(char *name, int length, int device) { snprintf(name, length, "no GPU"); return 0; }
result cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)80 << 30; return 0; }
result cuMemGetInfo_v2(size_t *available, size_t *bytes) { *available = *bytes = (size_t)80 << 30; return 0; }

result cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 1: *value = 1024; return 0;               /* units of a cube */
    case 2: case 3: *value = 1024; return 0;       /* in x and y */
    case 4: *value = 64; return 0;                 /* in z */
    case 5: *value = 2147483647; return 0;         /* cubes in x */
    case 6: case 7: *value = 65535; return 0;      /* in y and z */
    case 10: *value = 32; return 0;                /* units of a warp */
    case 16: *value = 132; return 0;               /* multiprocessors */
    case 75: *value = sm() / 10; return 0;
    case 76: *value = sm() % 10; return 0;
    /* Shared memory that a cube may ask for: CUDA C++ Programming Guide, technical specifications per compute capability. */
    case 97: *value = 1024 * (sm() == 80 ? 163 : sm() == 90 ? 227 : 99); return 0;
    default: *value = 0; return 0;
    }
}

result cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)1; return 0; }
result cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
result cuCtxSetCurrent(void *context) { return 0; }
result cuCtxGetCurrent(void **context) { *context = (void *)1; return 0; }
result cuCtxSynchronize(void) { return 0; }

result cuStreamCreate(void **stream, unsigned flags) { *stream = (void *)1; return 0; }
result cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) { *stream = (void *)1; return 0; }
result cuStreamSynchronize(void *stream) { return 0; }
result cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return 0; }
result cuStreamDestroy_v2(void *stream) { return 0; }
result cuEventCreate(void **event, unsigned flags) { *event = (void *)1; return 0; }
result cuEventRecord(void *event, void *stream) { return 0; }
result cuEventQuery(void *event) { return 0; }
result cuEventSynchronize(void *event) { return 0; }
result cuEventDestroy_v2(void *event) { return 0; }

static result give(uint64_t *address, size_t bytes) {
    void *memory;
    if (posix_memalign(&memory, 512, bytes ? bytes : 1)) return OUT_OF_MEMORY;
    memset(memory, 0, bytes);
    *address = (uint64_t)(uintptr_t)memory;
    return 0;
}
result cuMemAlloc_v2(uint64_t *address, size_t bytes) { return give(address, bytes); }
result cuMemAllocAsync(uint64_t *address, size_t bytes, void *stream) { return give(address, bytes); }
result cuMemFree_v2(uint64_t address) { free((void *)(uintptr_t)address); return 0; }
result cuMemFreeAsync(uint64_t address, void *stream) { return cuMemFree_v2(address); }
result cuMemAllocHost_v2(void **memory, size_t bytes) { return give((uint64_t *)memory, bytes); }
result cuMemFreeHost(void *memory) { free(memory); return 0; }

static result copy(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); return 0; }
result cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) { return copy((void *)(uintptr_t)to, from, bytes); }
result cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) { return copy(to, (void *)(uintptr_t)from, bytes); }
result cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) {
    return copy((void *)(uintptr_t)to, (void *)(uintptr_t)from, bytes);
}

/* CUDA_MEMCPY2D */
struct copy_2d {
    size_t from_x, from_y;
    int from_kind;
    const void *from_host;
    uint64_t from_device;
    void *from_array;
    size_t from_pitch;
    size_t to_x, to_y;
    int to_kind;
    void *to_host;
    uint64_t to_device;
    void *to_array;
    size_t to_pitch;
    size_t width, height;
};
result cuMemcpy2DAsync_v2(const struct copy_2d *c, void *stream) {
    const char *from = c->from_kind == 1 ? c->from_host : (const void *)(uintptr_t)c->from_device;
    char *to = c->to_kind == 1 ? c->to_host : (void *)(uintptr_t)c->to_device;
    for (size_t row = 0; row < c->height; row++)
        memcpy(to + (c->to_y + row) * c->to_pitch + c->to_x, from + (c->from_y + row) * c->from_pitch + c->from_x, c->width);
    return 0;
}

struct function { int module; char name[1024]; };
static int modules;

result cuModuleLoadData(void **module, const void *image) {
    char name[32];
    snprintf(name, sizeof name, "%d.ptx", ++modules);
    FILE *f = file(name, "w");
    fputs(image, f);
    fclose(f);
    *module = (void *)(intptr_t)modules;
    return 0;
}
result cuModuleUnload(void *module) { return 0; }
result cuModuleGetFunction(void **function, void *module, const char *name) {
    struct function *f = calloc(1, sizeof *f);
    f->module = (int)(intptr_t)module;
    snprintf(f->name, sizeof f->name, "%s", name);
    *function = f;
    return 0;
}
result cuFuncSetAttribute(void *function, int attribute, int value) { return 0; }

result cuLaunchKernel(struct function *function, unsigned cx, unsigned cy, unsigned cz, unsigned ux, unsigned uy, unsigned uz,
                      unsigned shared, void *stream, void **arguments, void **extra) {
    FILE *f = file("launches", "a");
    fprintf(f, "%d\t%s\t%u\t%u\n", function->module, function->name, ux * uy * uz, shared);
    fclose(f);
    return 0;
}

result cuTensorMapEncodeTiled(void *map) { return 0; }
result cuTensorMapEncodeIm2col(void *map) { return 0; }
result cuTensorMapEncodeIm2colWide(void *map) { return 0; }

result cuGetErrorName(result error, const char **name) { *name = "an error of no GPU"; return 0; }
result cuGetErrorString(result error, const char **text) { *text = "an error of no GPU"; return 0; }
