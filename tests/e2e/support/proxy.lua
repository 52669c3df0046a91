-- PROXY headers, made by hand: what they are is for the tests to say, right or wrong.
local bit = require "bit"
local ffi = require "ffi"

local proxy = { SIGNATURE = "\r\n\r\n\0\r\nQUIT\n" }

local function u16(n) return string.char(bit.rshift(n, 8), bit.band(n, 255)) end
proxy.u16 = u16

-- "PROXY TCP4 203.0.113.7 10.0.0.1 50000 443\r\n"
function proxy.v1(...) return "PROXY " .. table.concat({ ... }, " ") .. "\r\n" end

-- A header of version 2: command and family as bytes, and what follows the head.
function proxy.raw(command, family, body)
  return proxy.SIGNATURE .. string.char(command, family) .. u16(#body) .. body
end

function proxy.tlv(type, value) return string.char(type) .. u16(#value) .. value end

local function packed(ip)
  local six = ip:find ":" ~= nil
  local out = ffi.new "uint8_t[16]"
  assert(ffi.C.inet_pton(six and 10 or 2, ip, out) == 1, ip)
  return ffi.string(out, six and 16 or 4), six
end

-- v2("203.0.113.7", 50000, "10.0.0.1", 443[, options])
function proxy.v2(from, from_port, to, to_port, tlvs)
  local a, six = packed(from)
  return proxy.raw(0x21, six and 0x21 or 0x11, a .. packed(to) .. u16(from_port) .. u16(to_port) .. (tlvs or ""))
end

function proxy.v2_unix(from, to, tlvs)
  local function path(text) return text .. ("\0"):rep(108 - #text) end
  return proxy.raw(0x21, 0x31, path(from) .. path(to) .. (tlvs or ""))
end

-- CRC-32C, bit by bit.
local function crc32c(bytes)
  local crc = bit.bnot(0)
  for i = 1, #bytes do
    crc = bit.bxor(crc, bytes:byte(i))
    for _ = 1, 8 do
      crc = bit.bxor(bit.rshift(crc, 1), bit.band(crc, 1) == 1 and 0x82f63b78 or 0)
    end
  end
  return bit.bnot(crc)
end

-- The header, whose options have a CRC32C of four zeros, with that filled in; `change` makes it wrong.
function proxy.with_checksum(header, change)
  local at = header:find("\3\0\4\0\0\0\0", 1, true)
  local crc = bit.bxor(crc32c(header), change or 0)
  local bytes = string.char(bit.rshift(crc, 24), bit.band(bit.rshift(crc, 16), 255), bit.band(bit.rshift(crc, 8), 255),
    bit.band(crc, 255))
  return header:sub(1, at + 2) .. bytes .. header:sub(at + 7)
end

return proxy
