-- KEYS: a part of the index of subjects with delivery records. ARGV: a time, and subjects.
-- Removes each subject that has this time in the index.
for i = 2, #ARGV do
    local at = redis.call('ZSCORE', KEYS[1], ARGV[i])
    if at and tonumber(at) == tonumber(ARGV[1]) then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return 1
