#!/usr/bin/env python3
"""A reader of SN3 segments and exported calls, written from docs/sn3.md and nothing else.

    reader.py segments DIRECTORY RECORDING [KEY_FILE]
    reader.py classic FILE

Prints a frame a line: kind side media ssrc pt marker flags seq cycles rtp_ts wall_ns payload.
What is damaged is said on standard error; the exit code is 1 then.
"""

import os
import struct
import subprocess
import sys

UNIT = 4096
MORE, CONTINUED, EMPTY = 16, 32, 64
SHAPE = MORE | CONTINUED | EMPTY
SEALED, ENCRYPTED, CHAINED, DIRECTORY, ERASED = 1, 2, 4, 32, 64
damages = 0


def damage(text):
    global damages
    damages += 1
    print(text, file=sys.stderr)


def make_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ 0x82F63B78 if byte & 1 else byte >> 1
        table.append(byte)
    return table


TABLE = make_table()


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def without_checksum(data, at):
    return crc32c(data[:at] + data[at + 4:])


class Extent:
    def __init__(self, page, data, header):
        self.page, self.data = page, data
        (self.units, self.flags, self.version, self.used, self.checksum, self.recording,
         self.ordinal, self.prev_segment, self.prev_page, self.frames, self.first_ns,
         self.span_us, self.dropped, self.nonce) = header

    def body_end(self):
        """Where the frames and the zeros behind them end."""
        link = 32 if self.flags & CHAINED else 0
        tag = 16 if self.flags & ENCRYPTED else 0
        return self.units * UNIT - link - tag

    def whole(self):
        if self.flags & ERASED:
            return without_checksum(self.data[:64], 12) == self.checksum and not any(self.data[64:])
        return without_checksum(self.data, 12) == self.checksum


def extent_at(data, page):
    head = data[page * UNIT:page * UNIT + 64]
    if len(head) < 64 or head[:4] != b"SN3E":
        return None
    header = struct.unpack("<BBHIIQIIIIQIIQ", head[4:])
    units, version = header[0], header[2]
    body = data[page * UNIT:(page + units) * UNIT]
    if version != 1 or not 1 <= units <= 16 or len(body) < units * UNIT:
        return None
    return Extent(page, body, header)


def frames_of(data, used, recording, ordinal, where):
    """The frames between the header and `used`."""
    seed = crc32c(struct.pack("<QI", recording, ordinal))
    at = 64
    while at < used:
        crc, ssrc, kind, media, mpt, flags, cycles, piece, dir_ = struct.unpack_from("<IIBBBBHBB", data, at)
        seq, ts, wall, length = struct.unpack_from("<HIQH", data, at + 16)
        if not 1 <= length <= 4000:
            damage(f"{where}: a frame of length {length} at {at}")
            return
        padded = (32 + length + 7) // 8 * 8
        if crc32c(struct.pack("<I", seed) + data[at + 4:at + padded]) != crc:
            damage(f"{where}: the frame at {at} is damaged")
            return
        payload = data[at + 32:at + 32 + length]
        side = dir_ & 1
        expected = side if kind == 0 and not flags & SHAPE else 2 + 2 * kind + side
        if dir_ != expected:
            damage(f"{where}: dir {dir_} of kind {kind}")
        yield dict(kind=kind, side=side, media=media, ssrc=ssrc, pt=mpt & 127, marker=mpt >> 7,
                   flags=flags, seq=seq, cycles=cycles, ts=ts, wall=wall, piece=piece, payload=payload)
        at += padded


def footer_of(data):
    last = data[len(data) // UNIT * UNIT - UNIT:len(data) // UNIT * UNIT]
    if last[:4] != b"SN3F" or without_checksum(last, 12) != struct.unpack_from("<I", last, 12)[0]:
        return None
    directory_page, page, extents = struct.unpack_from("<III", last, 16)
    return (directory_page, page, extents) if (page + 1) * UNIT == len(data) else None


def listed(data, footer):
    """The places in the directories, from the footer back."""
    places = []
    page, _, count = footer
    while page:
        extent = extent_at(data, page)
        if not extent or not extent.whole() or not extent.flags & DIRECTORY:
            return None
        entries = []
        for frame in frames_of(extent.data, extent.used, 0, extent.ordinal, "directory"):
            if frame["kind"] == 11:
                for at in range(0, len(frame["payload"]) // 24 * 24, 24):
                    entries.append(struct.unpack_from("<IIQIBBH", frame["payload"], at))
        places = entries + places
        page = extent.prev_page
    return places if len(places) == count else None


def hopped(data, end):
    """The places by hopping."""
    places, page = [], 1
    while page * UNIT < end:
        extent = extent_at(data, page)
        if extent and extent.flags & (SEALED | ERASED) and extent.whole():
            if not extent.flags & DIRECTORY:
                places.append((page, extent.checksum, extent.recording, extent.ordinal,
                               extent.units, extent.flags, 0))
            page += extent.units
        elif not any(data[page * UNIT:end]):
            break
        else:
            damage(f"no whole extent at byte {page * UNIT}")
            page += 1
    return places


def openssl_ctr(key, nonce, data):
    """The key stream of AES-256-GCM begins with counter 2."""
    iv = (nonce + struct.pack(">I", 2)).hex()
    command = ["openssl", "enc", "-d", "-aes-256-ctr", "-K", key.hex(), "-iv", iv]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def data_key(directory, recording, key_file):
    master = bytes.fromhex(open(key_file).read().split()[0])
    for name in sorted(os.listdir(directory)):
        if not (name.startswith("keys-") and name.endswith(".sn3k")):
            continue
        slots = open(os.path.join(directory, name), "rb").read()
        for at in range(0, len(slots) // 128 * 128, 128):
            slot = slots[at:at + 128]
            magic, version, flags, owner = struct.unpack_from("<4sHHQ", slot)
            if magic != b"SN3K" or version != 1 or owner != recording or flags & 1:
                continue
            if crc32c(slot[:124]) != struct.unpack_from("<I", slot, 124)[0]:
                damage(f"{name}: the slot at {at} is damaged")
                continue
            return openssl_ctr(master, slot[32:44], slot[48:80])
    return None


def segment_frames(directory, recording, key_file):
    extents = []
    for name in sorted(os.listdir(directory)):
        if not name.endswith(".sn3s"):
            continue
        data = open(os.path.join(directory, name), "rb").read()
        number = struct.unpack_from("<I", data, 8)[0]
        if data[:4] != b"SN3S" or without_checksum(data[:UNIT], 12) != struct.unpack_from("<I", data, 12)[0]:
            damage(f"{name}: the header is damaged")
        footer = footer_of(data)
        places = listed(data, footer) if footer else None
        if places is None:
            places = hopped(data, footer[1] * UNIT if footer else len(data))
        for page, _, owner, ordinal, units, flags, _ in places:
            if owner != recording or flags & DIRECTORY:
                continue
            extent = extent_at(data, page)
            if not extent or not extent.whole():
                damage(f"{name}: the extent at page {page} is damaged")
                continue
            extents.append((extent.ordinal, name, extent, (number, page)))
    extents.sort(key=lambda one: one[0])
    before, held = -1, (0, 0)
    key = data_key(directory, recording, key_file) if key_file else None
    for ordinal, name, extent, place in extents:
        led = (extent.prev_segment, extent.prev_page)
        if ordinal != before + 1 and led != held:
            damage(f"extents {before + 1} to {ordinal - 1} are missing")
        before, held = ordinal, place
        if extent.flags & ERASED:
            continue
        data = extent.data
        if extent.flags & ENCRYPTED:
            nonce = struct.pack("<IQ", extent.ordinal, extent.nonce)
            data = data[:64] + openssl_ctr(key, nonce, data[64:extent.body_end()])
        where = f"{name}, page {extent.page}"
        if extent.dropped:
            damage(f"{where}: {extent.dropped} frames were dropped before it")
        found = list(frames_of(data, extent.used, recording, ordinal, where))
        if len(found) != extent.frames:
            damage(f"{where}: {len(found)} frames of {extent.frames}")
        yield from found


def classic_frames(path):
    """An exported call: classic frames, and what extension frames (dir 255) say of them."""
    data = open(path, "rb").read()
    if data[:3] != b"SN3":
        raise SystemExit("not SN3")
    at, rebase, lasting, coming = 3, None, {}, {}
    while at + 17 <= len(data):
        dir_, seq, ts, wall, length = struct.unpack_from("<BHIQH", data, at)
        payload = data[at + 17:at + 17 + length]
        at += 17 + length
        if dir_ == 255 and payload[:4] == b"TLX1":
            if payload[4] == 0:
                rebase = struct.unpack_from("<Q", payload, 8)[0]
                continue
            about, kind, media, ssrc, mpt, flags, cycles = struct.unpack_from("<BBBIBBH", payload, 5)
            lasting[about] = (kind, media, ssrc, mpt & 127, cycles)
            rest = payload[16:]
            own_wall = struct.unpack_from("<Q", rest)[0] if len(rest) >= 8 else None
            piece = rest[-1] if len(rest) in (1, 9) else 0
            coming[about] = (mpt >> 7, flags, own_wall, piece)
            continue
        if rebase is None:
            if dir_ > 1:
                continue
            rebase = 0
        start = (dir_ if dir_ < 2 else (dir_ - 2) // 2)
        kind, media, ssrc, pt, cycles = lasting.get(dir_, (0 if dir_ < 2 else start, 0, 0, 0, 0))
        marker, flags, own_wall, piece = coming.pop(dir_, (0, 0, None, 0))
        yield dict(kind=kind, side=dir_ & 1, media=media, ssrc=ssrc, pt=pt, marker=marker, flags=flags,
                   seq=seq, cycles=cycles, ts=ts, wall=own_wall if own_wall is not None else wall + rebase,
                   piece=piece, payload=payload)
    if at != len(data):
        damage(f"a cut frame at {at}")


def joined(frames):
    """Puts split payloads together, and gives empty ones back empty."""
    parts = {}
    for frame in frames:
        place = (frame["kind"], frame["side"], frame["media"])
        if frame["flags"] & CONTINUED:
            part = parts.get(place)
            if part is None or part["next"] != frame["piece"]:
                damage("a piece of a payload is missing")
                parts.pop(place, None)
                continue
            part["payload"] += frame["payload"]
            part["next"] += 1
            if not frame["flags"] & MORE:
                yield parts.pop(place)
        elif frame["flags"] & MORE:
            parts[place] = dict(frame, next=1)
        else:
            if frame["flags"] & EMPTY:
                frame["payload"] = b""
            yield frame


def main():
    if sys.argv[1] == "segments":
        key_file = sys.argv[4] if len(sys.argv) > 4 else None
        frames = segment_frames(sys.argv[2], int(sys.argv[3]), key_file)
    else:
        frames = classic_frames(sys.argv[2])
    for frame in joined(frames):
        fields = [frame[name] for name in ("kind", "side", "media", "ssrc", "pt", "marker")]
        fields += [frame["flags"] & ~SHAPE]
        fields += [frame[name] for name in ("seq", "cycles", "ts", "wall")]
        print(*fields, frame["payload"].hex())
    sys.exit(1 if damages else 0)


main()
