//! Which microphones of a room are heard when only the loudest are forwarded.
//!
//! There are N places. A microphone without one takes a free place, or that of the quietest when its packet is
//! louder (RFC 6464 level): at once, so that no word loses its beginning. Each place remembers the loudest level of its
//! microphone, which fades soon after it was last reached: that carries a voice over the pauses between its words, and
//! leaves the place of one that has ended to the next.

/// A level is remembered this long …
const HOLD_US: u64 = 150_000;
/// … and then fades by so much a second.
const FADE_DB: u64 = 60;
/// From here on a level is taken for speech, dBov below full scale.
const SPEECH: u8 = 50;
/// Speech has to be louder by so much than the quietest of those that are heard, else two voices of the same loudness
/// would take turns with every syllable.
const SPEECH_MARGIN_DB: u32 = 3;
/// Noise has to be louder by so much: among silent microphones nothing changes.
const NOISE_MARGIN_DB: u32 = 10;
/// −dBov of digital silence.
const SILENT: u8 = 127;

/// Thousandths of a decibel above silence.
type Loudness = u32;

fn loudness(level: u8) -> Loudness {
    u32::from(SILENT.saturating_sub(level)) * 1000
}

struct Place<K> {
    of: K,
    peak: Loudness,
    peak_us: u64,
}

impl<K> Place<K> {
    fn now(&self, now_us: u64) -> Loudness {
        let faded = now_us.saturating_sub(self.peak_us).saturating_sub(HOLD_US) * FADE_DB / 1000;
        self.peak.saturating_sub(u32::try_from(faded).unwrap_or(u32::MAX))
    }
}

/// The places of a room.
pub(crate) struct Voices<K> {
    limit: usize,
    places: Vec<Place<K>>,
}

impl<K> Default for Voices<K> {
    fn default() -> Self {
        Self { limit: 0, places: Vec::new() }
    }
}

impl<K: Copy + PartialEq> Voices<K> {
    /// So many are heard; 0: all.
    pub fn set_limit(&mut self, limit: usize, now_us: u64) {
        if self.limit == limit {
            return;
        }
        self.limit = limit;
        self.places.sort_by_key(|p| std::cmp::Reverse(p.now(now_us)));
        self.places.truncate(limit);
    }

    /// Not everybody is heard.
    #[inline]
    pub fn is_limited(&self) -> bool {
        self.limit > 0
    }

    /// A packet with this level (−dBov) came: is it heard?
    pub fn hear(&mut self, of: K, level: u8, now_us: u64) -> bool {
        let loud = loudness(level);
        let new = Place { of, peak: loud, peak_us: now_us };
        if let Some(place) = self.places.iter_mut().find(|p| p.of == of) {
            if loud >= place.now(now_us) {
                *place = new;
            }
            return true;
        }
        if self.limit == 0 {
            return true;
        }
        if self.places.len() < self.limit {
            self.places.push(new);
            return true;
        }
        let margin = if level <= SPEECH { SPEECH_MARGIN_DB } else { NOISE_MARGIN_DB } * 1000;
        match self.places.iter_mut().min_by_key(|p| p.now(now_us)) {
            Some(quietest) if loud > quietest.now(now_us) + margin => {
                *quietest = new;
                true
            }
            _ => false,
        }
    }

    /// It is muted or gone.
    pub fn leave(&mut self, of: K) {
        self.places.retain(|p| p.of != of);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME_US: u64 = 20_000;

    fn voices(limit: usize) -> Voices<usize> {
        let mut voices = Voices::default();
        voices.set_limit(limit, 0);
        voices
    }

    /// Everybody's packet of one moment; who was heard.
    fn moment(voices: &mut Voices<usize>, levels: &[u8], now_us: u64) -> Vec<usize> {
        let all = levels.iter().enumerate();
        all.filter(|(who, level)| voices.hear(*who, **level, now_us)).map(|(who, _)| who).collect()
    }

    #[test]
    fn all_are_heard_without_a_limit() {
        let mut voices = voices(0);
        assert_eq!(moment(&mut voices, &[127; 9], 0).len(), 9);
        assert!(!voices.is_limited());
    }

    #[test]
    fn a_louder_one_is_heard_at_once_in_the_place_of_the_quietest() {
        let mut voices = voices(2);
        assert_eq!(moment(&mut voices, &[40, 30, 127], 0), [0, 1]);
        assert_eq!(moment(&mut voices, &[40, 30, 38], FRAME_US), [0, 1], "not by a hair");
        assert_eq!(moment(&mut voices, &[127, 127, 36], 2 * FRAME_US), [0, 1, 2], "0 came before 2");
        assert_eq!(moment(&mut voices, &[127, 127, 127], 3 * FRAME_US), [1, 2]);
    }

    #[test]
    fn a_voice_is_kept_over_its_pauses_and_fades_after_its_last_word() {
        let mut voices = voices(1);
        voices.hear(0, 30, 0);
        let taken = |voices: &mut Voices<usize>, at_us: u64| {
            voices.hear(0, 127, at_us);
            voices.hear(1, 30, at_us)
        };
        assert!(!taken(&mut voices, HOLD_US));
        assert!(!taken(&mut voices, HOLD_US + 40_000), "3 dB take 50 ms");
        assert!(taken(&mut voices, HOLD_US + 60_000));
    }

    #[test]
    fn silence_takes_a_free_place_and_noise_takes_none_from_noise() {
        let mut voices = voices(2);
        assert_eq!(moment(&mut voices, &[127, 75, 70, 80], 0), [0, 1, 2], "2 instead of digital silence");
        for i in 1..1000 {
            let wobble = [127, 75 + (i % 5) as u8, 70 + (i % 7) as u8, 72];
            assert_eq!(moment(&mut voices, &wobble, i * FRAME_US), [1, 2], "moment {i}");
        }
        assert_eq!(moment(&mut voices, &[127, 75, 70, 60], 1000 * FRAME_US), [1, 2, 3], "a whisper is heard");
    }

    #[test]
    fn who_is_muted_or_gone_frees_its_place_and_fewer_places_keep_the_loudest() {
        let mut voices = voices(3);
        moment(&mut voices, &[20, 30, 40, 50], 0);
        voices.leave(0);
        assert!(voices.hear(3, 127, FRAME_US));
        voices.set_limit(1, FRAME_US);
        assert_eq!(moment(&mut voices, &[127, 127, 127, 127], 2 * FRAME_US), [1]);
        voices.set_limit(0, 0);
        assert_eq!(moment(&mut voices, &[127; 4], 0).len(), 4);
    }

    struct Rng(u64);

    impl Rng {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % n
        }
    }

    /// Somebody in a meeting: silent, or saying words with pauses in between.
    #[derive(Clone, Copy, Default)]
    struct Person {
        speaks_until: u64,
        word_until: u64,
        pause_until: u64,
    }

    impl Person {
        fn level(&mut self, now_us: u64, rng: &mut Rng) -> u8 {
            if now_us >= self.speaks_until {
                return 65 + rng.below(12) as u8;
            }
            if now_us >= self.pause_until {
                self.word_until = now_us + 150_000 + rng.below(600_000);
                self.pause_until = self.word_until + 50_000 + rng.below(300_000);
            }
            if now_us < self.word_until { 25 + rng.below(14) as u8 } else { 60 + rng.below(12) as u8 }
        }
    }

    /// Two of fifty speak at any time, each for some seconds, the next one the moment that one ends; three places.
    #[test]
    fn words_of_two_who_speak_are_not_lost_among_fifty() {
        for seed in 0..20 {
            let (mut rng, mut voices) = (Rng(seed), voices(3));
            let mut people = [Person::default(); 50];
            let (mut lost, mut words, mut changes, mut sent) = (0, 0, 0, 0);
            let mut before = Vec::new();
            for now_us in (0..120_000_000).step_by(FRAME_US as usize) {
                while people.iter().filter(|p| p.speaks_until > now_us).count() < 2 {
                    let next = rng.below(50) as usize;
                    people[next].speaks_until = now_us + 500_000 + rng.below(8_000_000);
                }
                let mut heard = Vec::new();
                for (who, person) in people.iter_mut().enumerate() {
                    let level = person.level(now_us, &mut rng);
                    let is_heard = voices.hear(who, level, now_us);
                    words += usize::from(level < 40);
                    lost += usize::from(level < 40 && !is_heard);
                    if is_heard {
                        heard.push(who);
                    }
                }
                sent += heard.len();
                changes += usize::from(heard != before);
                before = heard;
            }
            assert!(words > 5000, "seed {seed}: they speak");
            assert!(lost * 400 < words, "seed {seed}: {lost} of {words} packets of speech");
            assert!(sent <= 3 * 6000 + changes, "seed {seed}: {sent} packets");
            assert!(changes < 200, "seed {seed}: {changes} changes in two minutes");
        }
    }

    /// Four speak at once for half a minute, and only three can be heard.
    #[test]
    fn four_voices_in_three_places_take_turns_by_the_word() {
        for seed in 0..20 {
            let (mut rng, mut voices) = (Rng(seed), voices(3));
            let mut people = [Person { speaks_until: u64::MAX, ..Person::default() }; 4];
            let mut begins = 0;
            let mut before = [false; 4];
            for now_us in (0..30_000_000).step_by(FRAME_US as usize) {
                for (who, person) in people.iter_mut().enumerate() {
                    let is_heard = voices.hear(who, person.level(now_us, &mut rng), now_us);
                    begins += usize::from(is_heard && !before[who]);
                    before[who] = is_heard;
                }
            }
            assert!(begins < 150, "seed {seed}: {begins} changes in 30 s");
        }
    }
}
