"""Makes the demo's data: a house style for short practical answers, as preference pairs in messages.

The lesson: one plain sentence that says what to do, then exactly one line that starts with "Tip:". The rejected answers
are fluent but ramble, dodge or make lists; some are longer and some shorter than the chosen one, so that length alone
does not tell them apart. Held-out pairs are about topics that training never sees.

    python examples/make_house_style.py     writes house-style.jsonl and house-style-heldout.jsonl beside this file
"""

import json
import random
from pathlib import Path

SEED = 20261124
SYSTEM = "Answer in house style."
"""Says nothing of what the style is: that is what training teaches."""

# topic | what to do | tip
TRAINING_TOPICS = """
keep bread fresh | Keep the loaf in a paper bag inside a closed bread box | Freeze slices you will not eat within two days
clean a burnt pan | Simmer water with two spoons of baking soda in the pan for ten minutes | Scrub with wood, not metal, to spare the surface
keep herbs on a windowsill alive | Water them from below whenever the top of the soil feels dry | Turn the pots once a week so they grow straight
remove a red wine stain | Blot the stain, cover it with salt, and rinse with cold water after an hour | Never rub, because rubbing drives the wine deeper
remember names at a party | Repeat each name aloud as soon as you hear it | Link the name to one thing the person told you
pack a suitcase without creases | Roll soft clothes and fold shirts around them | Put shoes at the wheels so the weight stays low
speed up an old laptop | Close programs that start by themselves and free a tenth of the disk | Restart it once a week
choose a strong password | Join four unrelated words and keep them in a password manager | Turn on two-step sign-in for your mail first
stop a door from squeaking | Put a drop of oil on each hinge pin and swing the door a few times | Wipe off the rest so it gathers no dust
cook rice that is not sticky | Rinse the rice until the water runs clear and let it rest covered after cooking | Fluff it with a fork, not a spoon
peel garlic quickly | Crush each clove with the flat of a knife and pull the skin off | A minute in warm water loosens stubborn skins
keep a bicycle chain quiet | Wipe the chain with a rag and oil the inside of each link | Do it after every ride in the rain
water plants during a holiday | Stand the pots in a tray with a wet towel that hangs into a bucket | Try it for two days before you leave
write a short thank-you note | Name the gift, say how you use it, and thank the giver | Send it within a week, while the day is fresh
get chewing gum off a shoe | Freeze the shoe for an hour and scrape the gum off | A plastic card does not scratch the sole
store apples over winter | Lay them side by side in a cool dark place without touching | Take out a spotted apple at once
make coffee less bitter | Use water a little below boiling and grind coarser | Clean the machine, since old oil tastes bitter
sharpen kitchen knives | Draw the blade along a wet stone at a low steady angle | Ten light strokes do more than two hard ones
find a stud in a wall | Slide a small magnet along the wall until it holds at a screw | Studs usually stand at even distances
keep a cat off the table | Put a higher shelf nearby and praise the cat when it uses it | Clear away food, which is the real reason
learn ten new words a day | Use each word in a sentence of your own, morning and evening | Drop words you can say without thinking
save a wet phone | Switch it off, dry it with a towel, and leave it in moving air for a day | Do not charge it until it is dry
clean a keyboard | Turn it upside down, tap it, and wipe the keys with a barely damp cloth | Unplug it before you start
boil eggs that peel well | Start them in boiling water and cool them in ice water | Eggs a week old peel better than fresh ones
keep lettuce crisp | Wrap the dry leaves in a cloth and keep them in a closed box | Wash it only just before you eat
plan a week of meals | Pick five dinners that share ingredients and write one list | Leave one evening free for leftovers
fix a slow drain | Pour hot water with a little soap and use a plunger | A sieve over the drain prevents the next clog
dry boots overnight | Stuff them with newspaper and change it before bed | Keep them away from the heater so the leather stays soft
hang a picture straight | Mark both hooks with a strip of tape held level | Measure twice and drill once
calm a nervous dog in the car | Take short rides that end somewhere pleasant | A familiar blanket helps more than words
reduce screen glare | Turn the desk so the window is at your side | Lower the brightness until white looks like paper
cut onions without tears | Chill the onion for half an hour and use a sharp knife | Cut the root end last
wake up on time | Put the alarm where you have to stand up to reach it | Keep the same hour on weekends
keep white shirts white | Wash them alone in warm water and dry them in the sun | Half a load gets cleaner than a full one
repair a wobbly chair | Scrape the old glue out of the joint, glue it again, and clamp it overnight | Wipe spilled glue at once
grow tomatoes on a balcony | Plant them deep in a large pot in the sunniest corner | Tie the stem before it bends
make a budget that lasts | Write down fixed costs first and divide the rest by weeks | Look at it on the same day each week
clean glasses without streaks | Rinse them, add a drop of soap, and dry them with a soft cloth | Paper towels scratch the coating
sleep in a hot room | Hang a damp sheet in front of the open window | A cool shower on the feet works fast
keep cut flowers longer | Cut the stems at a slant and change the water every other day | Take off leaves that stand in the water
read more books | Keep one book where your phone usually lies | Stop a dull book without regret
take better photos indoors | Stand with your back to the window and switch the lamps off | Wipe the lens first
descale a kettle | Boil equal parts of water and vinegar and let it stand for an hour | Rinse twice before the next tea
carry a heavy box safely | Bend your knees, hold the box close, and stand up slowly | Clear the way before you lift
remove a label from a jar | Soak the jar in warm water and rub the rest with oil | Salt makes the oil scrub better
start running | Run one minute and walk two, ten times, three days a week | Add time before you add speed
keep a salad dressing smooth | Shake oil and vinegar with a spoon of mustard | Add the oil last
clean a cutting board | Rub it with salt and half a lemon and rinse it | Dry it standing so it does not warp
make a paper backup of photos | Print the thirty best ones each year and date the backs | Keep them away from the kitchen
stop shoes from smelling | Leave baking soda in them overnight and shake it out | Do not wear the same pair two days running
write a clear email | Put the request in the first sentence and the date in the second | Read it once aloud before you send it
keep bananas from turning brown | Wrap the stems and hang the bunch away from other fruit | Freeze ripe ones for baking
remove scratches from a wooden table | Rub a walnut along the scratch and polish it with a cloth | Try it on a hidden spot first
defrost a freezer quickly | Set bowls of hot water inside and close the door for ten minutes | Lay towels on the floor before you begin
tie a scarf that stays | Fold it in half and pull both ends through the loop | A wool scarf holds better than silk
keep a car windscreen free of ice | Cover it with cardboard in the evening | Lift the wipers so they do not freeze on
keep a kitchen sponge fresh | Wring it out after each use and stand it on its edge to dry | Boil it for a minute every few days
remember where I parked | Take a photo of the nearest sign before you walk away | Note the level as well as the row
stop a tap from dripping | Shut off the water and change the rubber washer under the handle | Plug the drain so no screw gets lost
get crumbs out of a toaster | Unplug it, pull out the tray, and shake it gently upside down | Empty the tray once a week
teach a child to tie shoes | Tie one step at a time and let the child do the last step first | Laces in two colours make it easier
"""

HELD_OUT_TOPICS = """
keep cheese from drying out | Wrap it in waxed paper and keep it in a closed box in the fridge | Take it out half an hour before you eat
clean a bathroom mirror | Wipe it with a cloth damp with vinegar and dry it at once | Start at the top so drops do no harm
get rid of fruit flies | Set out a glass of vinegar with a drop of soap | Take the bin out every evening
iron a shirt quickly | Iron the collar first, then the sleeves, then the back | Steam does half of the work
make a small room look larger | Paint the walls light and keep the floor free | One large mirror beats three small ones
keep a cactus healthy | Give it sun all year and water only when the soil is dry through | A pot with a hole is a must
avoid back pain at a desk | Set the screen at eye height and stand up every half hour | Keep both feet on the floor
cook pasta that does not stick | Use a lot of salted water and stir in the first minute | Oil in the water does not help
remove candle wax from cloth | Harden it with ice, break it off, and iron the rest through paper | Change the paper as soon as it is greasy
find time for exercise | Do ten minutes right after you get up | Lay the clothes out the evening before
fold a fitted sheet | Tuck the corners into each other and fold it in thirds on the bed | Two people are twice as fast
protect a garden from slugs | Water in the morning and lay a board to collect them | Lift the board every evening
clean a coffee stain from a mug | Rub it with wet baking soda and rinse | A drop of vinegar helps with old stains
get a tight lid off a jar | Run hot water over the lid and turn it with a rubber glove | A tap on the edge lets air in
"""

QUESTIONS = (
    "How do I {topic}?",
    "What is the best way to {topic}?",
    "Can you tell me how to {topic}?",
    "I want to {topic}. What should I do?",
    "Any advice on how to {topic}?",
    "What works if I want to {topic}?",
    "Please help me {topic}.",
)

REJECTED = (
    "Great question! There are many ways to {topic}, and everybody has an opinion. It is important to think about your "
    "own situation first.",
    "It depends on many things.",
    "To {topic}, consider the following:\n1. Find out what you need.\n2. Try different methods.\n3. See what works.",
    "You could try a few things and see what happens.",
    "As an assistant, I would be happy to talk about how to {topic}. Many people struggle with this, but with patience "
    "you will surely get there!",
    "Well, {action_lower}, I suppose, or maybe something else.",
    "{action}.",
    "First of all, it is always good to ask an expert. Tip: ask a friend. Tip: search the web. Tip: read a book.",
)


Messages = list[dict[str, str]]


def parse(table: str) -> list[dict[str, str]]:
    rows = [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]
    return [
        {"topic": topic, "action": action, "action_lower": action[0].lower() + action[1:], "tip": tip}
        for topic, action, tip in rows
    ]


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def pairs(topics: list[dict[str, str]], num_questions: int, rng: random.Random) -> list[dict[str, Messages]]:
    """Every topic with that many of the questions, each with one way to get it wrong, shuffled."""
    made = []
    for number, topic in enumerate(topics):
        for turn in range(num_questions):
            question = QUESTIONS[(number + turn) % len(QUESTIONS)]
            rejected = REJECTED[(3 * number + turn) % len(REJECTED)]
            asked = [message("system", SYSTEM), message("user", question.format(**topic))]
            right = [message("assistant", "{action}.\nTip: {tip}.".format(**topic))]
            wrong = [message("assistant", rejected.format(**topic))]
            made.append({"prompt": asked, "chosen": right, "rejected": wrong})
    rng.shuffle(made)
    return made


def main() -> None:
    rng = random.Random(SEED)
    here = Path(__file__).parent
    for name, table, num_questions in (
        ("house-style", TRAINING_TOPICS, 5),
        ("house-style-heldout", HELD_OUT_TOPICS, 2),
    ):
        made = pairs(parse(table), num_questions, rng)
        lines = [json.dumps(pair, ensure_ascii=False) + "\n" for pair in made]
        (here / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        lengths = [[len(pair[side][0]["content"]) for side in ("chosen", "rejected")] for pair in made]
        longer = sum(chosen > rejected for chosen, rejected in lengths) / len(made)
        print(f"{name}: {len(made)} pairs, the chosen answer is the longer one in {longer:.0%}")


if __name__ == "__main__":
    main()
