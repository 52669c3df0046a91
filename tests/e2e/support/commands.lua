-- The command lines of a document in Markdown: every line of a ```sh block that begins with `penstock `.
--
--   commands.of(path) -> list of { line =, words =, steps =, down = }
--
-- line    of the document where the command stands
-- words   of the command, without "penstock"; a line that ends with a backslash goes on in the next
-- steps   what the comments below it say that passes, in this order; WHO is client, upstream, or an address as written:
--           # WHO sends: "ping\n"
--           # WHO gets: "PING\n"
--           # client asks for: "a.lab"          (a ClientHello, which comes out whole at whoever is named next)
--           # ends: reason=denied detail=quota
-- down    addresses where nobody listens, of `# down: ADDRESS`
local sys = require "tests.e2e.support.sys"

local commands = {}

local function words_of(text)
  local list = {}
  text = text:gsub("%s+#%s.*$", "")
  for word in (text .. " "):gmatch "(%S+)%s" do
    list[#list + 1] = word:gsub("['\"]", "")
  end
  table.remove(list, 1)
  return list
end

local function note(command, text)
  local who, act, quoted = text:match '^# (%S+) (%a+): (".*")$'
  if text:match '^# client asks for: "' then who, act, quoted = "client", "asks", text:match ': (".*")$' end
  if who then
    table.insert(command.steps, { who = who, act = act, bytes = assert(loadstring("return " .. quoted))() })
  elseif text:find "^# ends: " then
    local want = {}
    for key, value in text:gmatch "(%w+)=(%S+)" do want[key] = value end
    table.insert(command.steps, { who = "nobody", act = "ends", want = want })
  elseif text:find "^# down: " then
    command.down[text:match "^# down: (%S+)$"] = true
  else
    error("what does it say? " .. text)
  end
end

local function take(list, text, line)
  if text:find "^penstock " then
    list[#list + 1] = { line = line, words = words_of(text), steps = {}, down = {} }
  elseif #list > 0 and text:find "^# " then
    note(list[#list], text)
  end
end

function commands.of(path)
  local list, inside, held, n = {}, false, "", 0
  for text in (assert(sys.read_file(path)) .. "\n"):gmatch "(.-)\n" do
    n = n + 1
    if text:find "^```" then
      inside = text == "```sh"
    elseif inside and text:find "\\$" then
      held = held .. text:sub(1, -2)
    elseif inside then
      take(list, held .. text, n)
      held = ""
    end
  end
  return list
end

return commands
