-- Captures, read by tshark(1).
local capture = {}

-- Runs it on the file. Returns what it prints.
function capture.read(t, path, ...)
  local child = t:spawn({ "tshark", "-r", path, ... }, { env = { HOME = t:folder(), LC_ALL = "C" } })
  assert(child:wait(60), "tshark does not end")
  assert(child.status == 0, "tshark: " .. child.err)
  return child.out
end

-- Rows of these fields of the packets that a filter lets through.
function capture.rows(t, path, filter, ...)
  local words = { "-Y", filter, "-T", "fields" }
  for _, field in ipairs { ... } do
    words[#words + 1] = "-e"
    words[#words + 1] = field
  end
  local rows = {}
  for line in capture.read(t, path, unpack(words)):gmatch "[^\n]+" do
    local row = {}
    for value in (line .. "\t"):gmatch "([^\t]*)\t" do row[#row + 1] = value end
    rows[#rows + 1] = row
  end
  return rows
end

-- Demands that Wireshark finds nothing wrong with it: no gap, no repetition, no bad checksum, no broken block.
function capture.expect_sound(t, path)
  local wrong = capture.read(t, path, "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-Y",
    "tcp.analysis.flags || tcp.checksum.status == 0 || ip.checksum.status == 0 || _ws.malformed")
  assert(wrong == "", "Wireshark finds fault with " .. path .. ":\n" .. wrong)
end

-- The bytes of conversation `number` (from 0): those of who has called, and the answers.
function capture.bytes(t, path, number)
  local text = capture.read(t, path, "-q", "-z", "follow,tcp,raw," .. number)
  local sides = { {}, {} }
  for tab, hex in text:match("Node 1:[^\n]*\n(.*)"):gmatch "(\t?)(%x+)\n" do
    local side = sides[tab == "" and 1 or 2]
    side[#side + 1] = hex:gsub("%x%x", function(byte) return string.char(tonumber(byte, 16)) end)
  end
  return table.concat(sides[1]), table.concat(sides[2])
end

return capture
