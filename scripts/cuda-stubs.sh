#!/usr/bin/env bash
# usage: cuda-stubs.sh CUDARC_SOURCE FOLDER
#
# Writes FOLDER/lib{cuda,cublas,cublasLt,curand,nvrtc}.a: for every function that cudarc declares a
# trampoline that opens the real library at the first call. A program linked with them has no
# link-time dependency on CUDA. Where a library is missing, its calls return an error code.
set -euo pipefail
source=$1 folder=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder"

# Assembly: one trampoline a function, which jumps through its slot; an empty slot is resolved
# first, with all argument registers saved (System V ABI: six integers, eight vectors, rax).
trampolines() { # library, error code, file with the names
    cat <<ASM
	.text
	.local lazy_resolver_$1
	.type lazy_resolver_$1,@function
lazy_resolver_$1:
	pushq %rdi; pushq %rsi; pushq %rdx; pushq %rcx; pushq %r8; pushq %r9; pushq %rax; pushq %r11
	subq \$136,%rsp
	movdqu %xmm0,(%rsp); movdqu %xmm1,16(%rsp); movdqu %xmm2,32(%rsp); movdqu %xmm3,48(%rsp)
	movdqu %xmm4,64(%rsp); movdqu %xmm5,80(%rsp); movdqu %xmm6,96(%rsp); movdqu %xmm7,112(%rsp)
	movl %r11d,%edi
	call lazy_resolve_$1
	movq %rax,%r10
	movdqu (%rsp),%xmm0; movdqu 16(%rsp),%xmm1; movdqu 32(%rsp),%xmm2; movdqu 48(%rsp),%xmm3
	movdqu 64(%rsp),%xmm4; movdqu 80(%rsp),%xmm5; movdqu 96(%rsp),%xmm6; movdqu 112(%rsp),%xmm7
	addq \$136,%rsp
	popq %r11; popq %rax; popq %r9; popq %r8; popq %rcx; popq %rdx; popq %rsi; popq %rdi
	testq %r10,%r10
	jz 1f
	jmp *%r10
1:	movl \$$2,%eax
	ret
ASM
    local index=0 name
    while read -r name; do
        cat <<ASM
	.globl $name
	.type $name,@function
$name:
	movq lazy_slots_$1+$((8 * index))(%rip),%r10
	testq %r10,%r10
	jz 1f
	jmp *%r10
1:	movl \$$index,%r11d
	jmp lazy_resolver_$1
	.size $name,.-$name
ASM
        index=$((index + 1))
    done <"$3"
    echo '	.section .note.GNU-stack,"",@progbits'
}

# C: opens the library once and looks names up. Functions that describe an error give a text even
# where the library is missing, except the driver's, whose strings come through an argument.
resolver() { # library, soname, other name, whether error texts are returned, file with the names
    cat <<C
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
__attribute__((visibility("hidden"))) void *lazy_slots_$1[$(wc -l <"$5")];
static const char *const names[] = {
$(sed 's/.*/"&",/' "$5")
};
static void *library;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static const char *missing(void) { return "$2 not found"; }
static void open_library(void) {
    library = dlopen("$2", RTLD_NOW | RTLD_GLOBAL);
    if (!library) library = dlopen("$3", RTLD_NOW | RTLD_GLOBAL);
    if (!library && getenv("CUDA_LAZY_VERBOSE")) fprintf(stderr, "cuda: %s\n", dlerror());
}
__attribute__((visibility("hidden"))) void *lazy_resolve_$1(int index) {
    pthread_once(&once, open_library);
    if (!library) {
        int text = strstr(names[index], "ErrorString") || strstr(names[index], "GetStatus");
        return $4 && text ? (void *)missing : 0;
    }
    void *found = dlsym(library, names[index]);
    if (found) __atomic_store_n(&lazy_slots_$1[index], found, __ATOMIC_RELEASE);
    return found;
}
C
}

# Module of cudarc, library, soname, other name, error code (34 is CUDA_ERROR_STUB_LIBRARY, the
# others say "not initialised" in their library's terms), whether error texts are returned.
while read -r module library soname other code texts; do
    names=$work/$module.names
    grep -hoE 'fn (cu|nvrtc)[A-Za-z0-9_]+\(' "$source/src/$module/sys/mod.rs" |
        sed 's/fn //; s/(//' | grep -vx culib | sort -u >"$names"
    [ -s "$names" ] || { echo "$source: no functions of $module found" >&2; exit 1; }
    trampolines "$library" "$code" "$names" >"$work/$module.s"
    resolver "$library" "$soname" "$other" "$texts" "$names" >"$work/${module}_resolver.c"
    gcc -c -O2 -fPIC "$work/$module.s" -o "$work/$module.o"
    gcc -c -O2 -fPIC "$work/${module}_resolver.c" -o "$work/${module}_resolver.o"
    rm -f "$folder/lib$library.a"
    ar crs "$folder/lib$library.a" "$work/$module.o" "$work/${module}_resolver.o"
done <<'LIBRARIES'
driver cuda libcuda.so.1 libcuda.so 34 0
cublas cublas libcublas.so.13 libcublas.so 1 1
cublaslt cublasLt libcublasLt.so.13 libcublasLt.so 1 1
curand curand libcurand.so.10 libcurand.so 203 1
nvrtc nvrtc libnvrtc.so.13 libnvrtc.so 7 1
LIBRARIES
