-- What specs with real programs share. Each program is started by the test in a folder of its own; one that is not
-- installed makes its cases pending.
local busted = require "busted"
local e2e = require "tests.e2e.support.case"
local case, sys = e2e.case, e2e.sys

local peers = {}

local function has(program)
  return os.execute(("command -v %s >/dev/null 2>&1"):format(program)) == 0
end

-- A case that needs these programs.
function peers.case_with(programs, name, run)
  for program in programs:gmatch "%S+" do
    if not has(program) then return busted.pending(name .. " (no " .. program .. ")") end
  end
  case(name, run)
end

function peers.wait_for_listener(t, address, child)
  local up = sys.wait_until(function()
    local socket = t:try_connect(address)
    if socket then socket:close() end
    return socket or child:wait(0)
  end)
  if not up or child.status then error(child.name .. " did not start: " .. child.err .. child.out, 2) end
end

-- A TCP port that is free now, for programs that cannot choose one themselves.
function peers.free_port(t)
  local held = t:refusing()
  held:close()
  return held.port
end

-- Runs a program to its end, which must be a success. Returns its output.
function peers.run(t, argv)
  local child = t:spawn(argv)
  local status = child:wait(60)
  if status ~= 0 then error(("%s ended with %s: %s"):format(argv[1], tostring(status), child.err .. child.out), 2) end
  return child.out
end

return peers
