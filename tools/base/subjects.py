"""What people ask a small picture model for: the subjects of the recognition measurement and of the contact sheet."""

from __future__ import annotations


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


COMMON_SUBJECTS = _listed(
    """
    red apple, banana, strawberry, lemon, grapes, watermelon, pineapple, cherries, pear, peach, tomato, carrot,
    ear of corn, mushroom, bread, cheese wedge, hamburger, french fries, pizza, hot dog, cookie, doughnut,
    birthday cake, cupcake, lollipop, ice cream, hot beverage, beer mug, wine glass, cooking,
    cat face, dog face, mouse face, rabbit face, fox, panda, lion, tiger face, cow face, pig face, frog,
    monkey face, chicken, penguin, owl, fish, tropical fish, whale, octopus, crab, snail, butterfly, honeybee,
    lady beetle, turtle, elephant, horse,
    automobile, bus, fire engine, police car, delivery truck, tractor, bicycle, locomotive, airplane, helicopter,
    rocket, sailboat, anchor,
    house, castle, sunflower, tulip, rose, cactus, palm tree, evergreen tree, deciduous tree, four leaf clover,
    sun, full moon, crescent moon, star, cloud, rainbow, snowman, umbrella, fire, droplet,
    red heart, grinning face, ghost, robot, crown, key, hammer, guitar, balloon, wrapped gift
    """
)
"""One hundred subjects that at least three of the training sets draw."""

SHEET_PROMPTS = _listed(
    """
    grinning face, smiling face with sunglasses, red heart, blue heart, star, sun, crescent moon, rainbow,
    cat face, dog face, panda, fox, lion, pig face, frog, rabbit face,
    fish, whale, octopus, crab, turtle, penguin, owl, butterfly,
    elephant, snail, honeybee, unicorn, red apple, banana, strawberry, lemon,
    watermelon, cherries, carrot, mushroom, hamburger, pizza, doughnut, birthday cake,
    automobile, bus, fire engine, bicycle, rocket, airplane, sailboat, locomotive,
    house, castle, evergreen tree, palm tree, sunflower, tulip, cactus, four leaf clover,
    umbrella, balloon, wrapped gift, guitar, key, crown, ghost, robot
    """
)
"""Eight by eight pictures that show what the base can and cannot do."""

COLOUR_PROMPTS = _listed(
    """
    red heart, orange heart, yellow heart, green heart, blue heart, purple heart, pink heart, red circle, yellow circle,
    green circle, blue circle, red apple, green apple, yellow lemon, yellow banana, red strawberry, green frog,
    blue car, red balloon, yellow star
    """
)
"""Twenty prompts that name a colour, for the measurement of whether it comes."""

KNOWN_SUBJECTS = tuple(
    dict.fromkeys(
        (
            *COMMON_SUBJECTS,
            *SHEET_PROMPTS,
            *_listed(
                """
                bear, koala, wolf, duck, bird, baby chick, dolphin, shark, spider, hatching chick, paw prints,
                green apple, tangerine, avocado, eggplant, hot pepper, broccoli, croissant, pancakes, egg, popcorn,
                soft ice cream, candy, chocolate bar, cocktail glass, pretzel, taco,
                hibiscus, cherry blossom, blossom, seedling, maple leaf, christmas tree, snow capped mountain, volcano,
                snowflake, water wave, sun with face, high voltage, ringed planet, cloud with rain,
                taxi, ambulance, ship, flying saucer, train,
                orange heart, yellow heart, green heart, purple heart, brown heart, black heart, pink heart,
                broken heart,
                red circle, orange circle, yellow circle, green circle, blue circle, purple circle, brown circle,
                black circle,
                smiling face, winking face, angry face, crying face, face with tears of joy,
                smiling face with heart eyes, sleeping face, nerd face, clown face, skull, pile of poo, jack-o'-lantern,
                alien, thumbs up,
                soccer ball, basketball, trophy, teddy bear, pencil, scissors, light bulb, candle, bell, alarm clock,
                television, envelope, backpack, gem stone, t-shirt, dress, musical note, bomb, shield, locked, magnet,
                bat, crocodile, deer, dove, dragon face, hamster, lizard, rooster, scorpion, shrimp, snake, squid, ant,
                spiral shell, two hump camel, chipmunk,
                melon, kiwi fruit, bacon, meat on bone, poultry leg, sushi, rice ball, glass of milk, cucumber,
                tropical drink, honey pot, baguette bread,
                motor scooter, racing car, tent, speedboat, bullet train, desert island, globe showing americas,
                mount fuji, church,
                closed book, books, camera, telephone, mobile phone, laptop, glasses, high heeled shoe, running shoe,
                top hat, woman's hat, graduation cap, jeans, handbag, ring, lipstick, crystal ball, drum, violin,
                trumpet, saxophone, microphone, artist palette, game die, joystick, bullseye, boxing glove, baseball,
                tennis, american football, volleyball, party popper, sparkles, magnifying glass tilted left,
                hourglass done, watch, electric plug, gear, crossed swords, dagger, door, package, money bag,
                paintbrush, sun behind cloud, tornado, fallen leaf, bouquet, two hearts,
                sparkling heart, heart with arrow, santa claus, princess, baby, thinking face, smiling face with halo,
                eyes, flexed biceps, victory hand, waving hand
                """
            ),
        )
    )
)
"""What a base knows by heart: what is asked for first, all of it drawn by at least three of the sets, alike in pose."""

ODD_DRAWINGS = frozenset(
    {
        "blob/baguette bread",
        "blob/basketball",
        "blob/bouquet",
        "blob/deer",
        "blob/electric plug",
        "blob/koala",
        "blob/laptop",
        "blob/lipstick",
        "blob/rainbow",
        "emojione/basketball",
        "emojione/boxing glove",
        "emojione/deer",
        "emojione/desert island",
        "emojione/electric plug",
        "emojione/lipstick",
        "emojione/money bag",
        "emojione/mount fuji",
        "emojione/racing car",
        "emojione/tent",
        "noto/birthday cake",
        "noto/cucumber",
        "noto/sailboat",
        "twemoji/banana",
        "twemoji/deer",
        "twemoji/racing car",
        "twemoji/red heart",
        "twemoji/strawberry",
        "twemoji/tennis",
    }
)
"""Drawings unlike those of the other sets: from another side, in other company, or (the heart) in crimson."""

HARD_SUBJECTS = frozenset(_listed("elephant, banana, strawberry, birthday cake, sailboat, key, red heart, watermelon"))
"""What a base that had seen everything equally often still drew badly; it comes oftener."""

PLAIN_NAMES = {
    "airplane": ("plane",),
    "artist palette": ("palette",),
    "automobile": ("car",),
    "baguette bread": ("baguette",),
    "balloon": ("red balloon",),
    "beer mug": ("beer",),
    "bicycle": ("bike",),
    "birthday cake": ("cake",),
    "blossom": ("flower",),
    "bullseye": ("target",),
    "cat face": ("cat", "kitten"),
    "cheese wedge": ("cheese",),
    "closed book": ("book",),
    "cooking": ("fried egg", "frying pan"),
    "cow face": ("cow",),
    "crescent moon": ("moon",),
    "crossed swords": ("swords",),
    "deciduous tree": ("tree",),
    "delivery truck": ("truck",),
    "desert island": ("island",),
    "dog face": ("dog", "puppy"),
    "doughnut": ("donut",),
    "dragon face": ("dragon",),
    "droplet": ("drop", "water drop"),
    "ear of corn": ("corn",),
    "evergreen tree": ("fir tree",),
    "fire": ("flame",),
    "fire engine": ("fire truck",),
    "flexed biceps": ("strong arm",),
    "four leaf clover": ("clover",),
    "french fries": ("fries",),
    "full moon": ("moon",),
    "game die": ("dice",),
    "glass of milk": ("milk",),
    "globe showing americas": ("globe", "earth"),
    "grinning face": ("face", "happy face"),
    "hamburger": ("burger",),
    "high heeled shoe": ("high heels",),
    "honeybee": ("bee",),
    "hot beverage": ("coffee", "cup of coffee", "cup of tea"),
    "hot pepper": ("chili",),
    "hourglass done": ("hourglass",),
    "jack-o'-lantern": ("pumpkin",),
    "lady beetle": ("ladybug", "ladybird"),
    "lion": ("lion face",),
    "locked": ("lock", "padlock"),
    "locomotive": ("steam train",),
    "magnifying glass tilted left": ("magnifying glass",),
    "mobile phone": ("phone", "smartphone"),
    "monkey face": ("monkey",),
    "motor scooter": ("scooter",),
    "mouse face": ("mouse",),
    "package": ("box", "cardboard box"),
    "pig face": ("pig",),
    "poultry leg": ("chicken leg",),
    "rabbit face": ("rabbit", "bunny"),
    "red apple": ("apple",),
    "red heart": ("heart",),
    "running shoe": ("shoe", "sneaker"),
    "sailboat": ("boat", "sailing ship"),
    "santa claus": ("santa",),
    "smiling face": ("smiley",),
    "snow capped mountain": ("mountain",),
    "soft ice cream": ("ice cream cone",),
    "spiral shell": ("shell", "seashell"),
    "tennis": ("tennis racket",),
    "tiger face": ("tiger",),
    "two hump camel": ("camel",),
    "wine glass": ("wine", "glass of wine"),
    "woman's hat": ("hat",),
    "wrapped gift": ("gift", "present"),
}
"""What people call a subject besides the names that icon sets give it."""

RECOLOURED_SUBJECTS = frozenset(
    _listed(
        """
        automobile, backpack, balloon, bird, dress, fish, star, t-shirt, umbrella,
        bell, blossom, boxing glove, bus, butterfly, candle, cat face, closed book, crown, cupcake, delivery truck,
        dog face, dragon face, frog, gem stone, guitar, handbag, key, lizard, lollipop, motor scooter, mushroom,
        octopus, racing car, rose, running shoe, snail, snake, telephone, tent, tulip, whale, woman's hat
        """
    )
)
"""What comes in any colour: it teaches what a colour's name means apart from the things that have it."""
