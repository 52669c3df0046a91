-- The Lua of a document in Markdown: every ```lua block, what it is, and what has to be done to it so that it can run.
--
--   snippets.of(path) -> list of { line =, kind =, name =, text =, wire =, modules = }
--
-- kind   "spec": tests for `penstock test` · "config": listeners · "policy": a table of hooks
-- line   of its first line in the document; `text` has its lines at the same distance
-- name   the file that a first line `-- guard.lua` says it is, else nil
-- wire   what its comments say that passes: { who = "client", act = "sends", bytes = "ping\n" }, …
--          -- client sends: "ping\n"
--          -- upstream gets: "PING\n"
-- raises  what its last comment says that a hook raises, `-- raises: "bad greeting"`, else nil
-- modules  of a first line that says `--lua-modules NAME`, else nil
--
-- What is no whole file is made one, by what it begins with: `connect = function…` goes into a policy, `it(…)` into a
-- spec, and other statements into a hook, or into a test when they speak of `t`.
local sys = require "tests.e2e.support.sys"

local snippets = {}

local head = 'local ps = require "penstock" '
local test = 'local t = require "penstock.test" '

local function has(text, pattern) return ("\n" .. text):find("\n" .. pattern) ~= nil end

-- kind, whole text
local function complete(text)
  if has(text, "describe%(") then return "spec", text end
  if has(text, "it%(") then return "spec", test .. text end
  if has(text, "ps%.listen") then return "config", text end
  if has(text, "return[ %(]") then return "policy", text end
  if text:find "^[%a_]+ = " then return "policy", head .. "return { " .. text .. "}" end
  if text:find "%f[%w]t%.%a" then return "spec", test .. 'it("runs", function() ' .. text .. "end)" end
  return "policy", head .. "return { accept = function(conn) " .. text .. "end }"
end

local function unquote(text) return text and assert(loadstring("return " .. text))() end

local function wire_of(text)
  local list = {}
  for line in text:gmatch "[^\n]+" do
    local who, act, quoted = line:match '^%s*%-%- (%a+) (%a+): (".*")$'
    if (who == "client" or who == "upstream") and (act == "sends" or act == "gets") then
      list[#list + 1] = { who = who, act = act, bytes = unquote(quoted) }
    end
  end
  return list
end

local function snippet(text, line)
  local kind, whole = complete(text)
  local first = text:match "^%-%- ([^\n]*)" or ""
  return {
    line = line, kind = kind, text = whole, name = first:match "^([%w_/-]+%.lua)%f[^%w]", wire = wire_of(text),
    modules = first:match "%-%-lua%-modules (%S+)", raises = unquote(text:match '\n%-%- raises: (".-")\n'),
  }
end

function snippets.of(path)
  local list, block, start, n = {}, nil, nil, 0
  for line in (assert(sys.read_file(path)) .. "\n"):gmatch "(.-)\n" do
    n = n + 1
    if not block and line:find "^```lua" then
      block, start = {}, n + 1
    elseif block and line:find "^```" then
      list[#list + 1] = snippet(table.concat(block, "\n") .. "\n", start)
      block = nil
    elseif block then
      block[#block + 1] = line
    end
  end
  return list
end

return snippets
