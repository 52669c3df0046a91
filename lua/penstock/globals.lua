-- Finds the globals that a file reads or assigns, by looking at its bytecode: also in functions that are not called
-- while it loads. For `penstock check`, in a state of its own: policies have no jit.util.
local nearest = require "penstock.nearest"
local util = require "jit.util"
local bit = require "bit"

local funcinfo, funcbc, funck = util.funcinfo, util.funcbc, util.funck

local globals = {}

-- The opcode at `pc` of this source: opcodes have no fixed numbers.
local function opcode(source, pc)
  return bit.band((funcbc(loadstring(source), pc)), 0xff)
end

local GET, SET = opcode("return marker", 1), opcode("local value marker = value", 2)

-- Calls visit(name, is_assigned, line) for each access in `f` and the functions in it.
local function walk(f, visit)
  local pc = 1
  while true do
    local instruction = funcbc(f, pc)
    if not instruction then break end
    local op = bit.band(instruction, 0xff)
    if op == GET or op == SET then
      visit(funck(f, -bit.rshift(instruction, 16) - 1), op == SET, funcinfo(f, pc).currentline)
    end
    pc = pc + 1
  end
  local n = -1
  while true do
    local constant = funck(f, n)
    if constant == nil then break end
    if type(constant) == "proto" then walk(constant, visit) end
    n = n - 1
  end
end

-- globals.of(chunk) -> { { name =, assigned =, line = }, … } in the order of lines.
function globals.of(chunk)
  local list = {}
  walk(chunk, function(name, assigned, line)
    list[#list + 1] = { name = name, assigned = assigned, line = line, order = #list }
  end)
  table.sort(list, function(a, b)
    if a.line ~= b.line then return a.line < b.line end
    return a.order < b.order
  end)
  return list
end

-- A chunk that changes its environment may mean anything by a free name.
local function changes_environment(list)
  for _, access in ipairs(list) do
    if access.name == "setfenv" or access.name == "module" then return true end
  end
  return false
end

local function warning(file, access, names)
  local near = nearest(access.name, names)
  if access.assigned then
    return ('%s:%d: assigns the global "%s"; write local %s (each worker has its own)'):format(file, access.line,
      access.name, access.name)
  end
  return ('%s:%d: unknown global "%s"%s'):format(file, access.line, access.name,
    near and (', did you mean "%s"?'):format(near) or "")
end

-- globals.warnings(files, known) -> list of lines. `known`: the names of globals, separated by blanks. A name that one
-- of the files assigns is told there, and known to all.
function globals.warnings(files, known)
  local names, is_known, chunks, lines = {}, {}, {}, {}
  for name in known:gmatch "%S+" do names[#names + 1], is_known[name] = name, true end
  local assigned = {}
  for i, file in ipairs(files) do
    local chunk = loadfile(file)
    chunks[i] = chunk and globals.of(chunk) or {}
    for _, access in ipairs(chunks[i]) do
      if access.assigned then assigned[access.name] = true end
    end
  end
  for i, file in ipairs(files) do
    local told = {}
    local skip = changes_environment(chunks[i])
    for _, access in ipairs(chunks[i]) do
      local unknown = not is_known[access.name] and (access.assigned or not assigned[access.name])
      local key = access.assigned and access.name or access.name .. ":" .. access.line -- an assigned one once
      if unknown and not skip and not told[key] then
        told[key] = true
        lines[#lines + 1] = warning(file, access, names)
      end
    end
  end
  return lines
end

return globals
