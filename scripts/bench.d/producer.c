// producer KIND BYTES [FILE]: writes BYTES to stdout in blocks of 64 KiB, the same bytes at every call.
//   lines   lines of 80 bytes, the newline included; a line may straddle two blocks
//   flat    no newline at all
//   random  every byte value, from a generator with a fixed seed
//   repeat  FILE (16 MiB at most) over and over; its end falls into the midst of a block
// Each block of the first two kinds begins with its own number, so that a lost, doubled or displaced one shows.
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 65536, LINE = 80, STAMP = 12 };

// A multiple of both, so that any block of the endless text is one piece of this.
static char text[BLOCK * LINE / 16];
static char block[BLOCK];

static void fill_text(int with_newlines) {
    for (size_t at = 0; at < sizeof text; at++)
        text[at] = with_newlines && at % LINE == LINE - 1 ? '\n' : (char)('a' + at % 26);
}

// 65536 is 16 more than a multiple of 80: a block begins at 0, 16, 32, 48 or 64 of a line, never so late in it that
// these 12 digits reach its newline.
static const char *numbered(uint64_t number) {
    memcpy(block, text + number * BLOCK % sizeof text, BLOCK);
    for (int digit = STAMP - 1; digit >= 0; digit--, number /= 10)
        block[digit] = (char)('0' + number % 10);
    return block;
}

static const char *noise(void) {
    static uint64_t state = 0x9e3779b97f4a7c15;
    for (size_t at = 0; at < BLOCK; at += sizeof state) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        memcpy(block + at, &state, sizeof state);
    }
    return block;
}

static void put(const char *bytes, size_t length) {
    while (length > 0) {
        ssize_t written = write(STDOUT_FILENO, bytes, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            perror("producer: write");
            exit(1);
        }
        bytes += written, length -= (size_t)written;
    }
}

// A whole file in memory, so that reading it is no part of what is measured.
static int repeat(const char *path, uint64_t left) {
    static char whole[(16 << 20) + BLOCK];
    FILE *file = fopen(path, "rb");
    size_t length = file ? fread(whole, 1, 16 << 20, file) : 0;
    if (length < BLOCK) {
        fprintf(stderr, "producer: %s: cannot be read, or has less than a block\n", path);
        return 1;
    }
    fclose(file);
    memcpy(whole + length, whole, BLOCK);
    for (size_t at = 0; left > 0; at = (at + BLOCK) % length) {
        size_t size = left < BLOCK ? (size_t)left : BLOCK;
        put(whole + at, size);
        left -= size;
    }
    return 0;
}

int main(int count, char **words) {
    if (count == 4 && strcmp(words[1], "repeat") == 0)
        return repeat(words[3], strtoull(words[2], NULL, 10));
    if (count != 3) {
        fputs("usage: producer lines|flat|random BYTES | repeat BYTES FILE\n", stderr);
        return 64;
    }
    int random = strcmp(words[1], "random") == 0;
    uint64_t left = strtoull(words[2], NULL, 10);
    fill_text(strcmp(words[1], "lines") == 0);
    for (uint64_t number = 0; left > 0; number++) {
        size_t length = left < BLOCK ? (size_t)left : BLOCK;
        put(random ? noise() : numbered(number), length);
        left -= length;
    }
    return 0;
}
