-- The name a user most likely meant: for error messages about unknown keys.

-- Damerau-Levenshtein distance (optimal string alignment).
local function distance(a, b)
  local before, last = nil, {}
  for j = 0, #b do last[j] = j end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      local best = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + cost)
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        best = math.min(best, before[j - 2] + 1)
      end
      row[j] = best
    end
    before, last = last, row
  end
  return last[#b]
end

-- nearest(word, names) -> the name that is near enough to be meant, or nil.
return function(word, names)
  if type(word) ~= "string" or #word > 40 then return nil end
  local best, least = nil, math.max(1, math.floor(#word / 3)) + 1
  for _, name in ipairs(names) do
    local d = distance(word:lower(), name)
    if d < least then best, least = name, d end
  end
  return best
end
