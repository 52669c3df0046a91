-- Base64 (RFC 4648), decoding only and strict: padded, and no bits left over. Pure.
local byte, char, concat, find, floor, sub = string.byte, string.char, table.concat, string.find, math.floor, string.sub

local base64 = {}

local values = {}
do
  local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  for i = 1, #alphabet do values[byte(alphabet, i)] = i - 1 end
  values[byte "="] = 0
end

-- decode(text) -> bytes, or nil
function base64.decode(text)
  if #text % 4 ~= 0 or not find(text, "^[%w+/]*=?=?$") then return nil end
  local parts = {}
  for i = 1, #text, 4 do
    local a, b, c, d = byte(text, i, i + 3)
    local n = ((values[a] * 64 + values[b]) * 64 + values[c]) * 64 + values[d]
    local three = char(floor(n / 65536), floor(n / 256) % 256, n % 256)
    local padding = (c == 61 and 2) or (d == 61 and 1) or 0
    if find(three, "[^%z]", 4 - padding) then return nil end
    parts[#parts + 1] = sub(three, 1, 3 - padding)
  end
  return concat(parts)
end

return base64
