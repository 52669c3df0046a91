-- The documents as a site: scripts/docs builds it, without a warning, and no link in it leads nowhere.
local lfs = require "lfs"
local e2e = require "tests.e2e.support.case"
local peers = require "tests.e2e.support.peers"
local sys = e2e.sys

local function build(t)
  peers.run(t, { "scripts/docs", t:folder() })
  local site, pages = t:folder() .. "/site", {}
  for name in lfs.dir(site) do
    if name:find "%.html$" then pages[name] = assert(sys.read_file(site .. "/" .. name)) end
  end
  return site, pages
end

-- What one link of a page lacks, nil when it is right.
local function missing(site, pages, page, link)
  local file, anchor = link:match "^([^#]*)#?(.*)$"
  if file == "" then file = page end
  if not lfs.attributes(site .. "/" .. file) then return "no such file" end
  if anchor ~= "" and pages[file] and not pages[file]:find(('id="%s"'):format(anchor), 1, true) then
    return "no such heading"
  end
end

describe("the site of the documents:", function()
  peers.case_with("mkdocs", "every document is a page, and every link leads to a heading that is there", function(t)
    local site, pages = build(t)
    for name in lfs.dir "docs" do
      local page = name:match "^(.*)%.md$"
      if page then assert.is_truthy(pages[page .. ".html"], name .. " is no page") end
    end
    local links, dead = 0, {}
    for page, text in pairs(pages) do
      for link in text:gmatch 'href="([^"]*)"' do
        links = links + 1
        local why = not link:find "^%a+:" and missing(site, pages, page, link)
        if why then dead[#dead + 1] = ("%s: %s: %s"):format(page, link, why) end
      end
    end
    assert.is_true(links > 500, links .. " links were found")
    assert.equal("", table.concat(dead, "\n"))
  end)

  peers.case_with("mkdocs", "every document is in the navigation, and no page loads from elsewhere", function(t)
    local _, pages = build(t)
    for page, text in pairs(pages) do
      assert.is_nil(text:match '<script[^>]* src="%a*:?//[^"]*"', page)
      assert.is_nil(text:match '<link[^>]* href="%a*:?//[^"]*"', page)
    end
    local config = assert(sys.read_file "mkdocs.yml")
    for name in lfs.dir "docs" do
      if name:find "%.md$" then assert.is_truthy(config:find(": " .. name .. "\n", 1, true), name) end
    end
  end)
end)
