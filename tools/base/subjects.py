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

EVERYDAY_SUBJECTS = frozenset(
    {
        *COMMON_SUBJECTS,
        *SHEET_PROMPTS,
        *_listed(
            """
            cat, dog, rabbit, mouse, hamster, bear, koala, wolf, tiger, leopard, horse face, deer, cow, pig, boar,
            goat, ewe, camel, gorilla, monkey, bat, rooster, chicken, baby chick, hatching chick, duck, eagle, bird,
            dove, turkey, crocodile, snake, lizard, dragon face, dolphin, spouting whale, shark, blowfish, squid,
            shrimp, spiral shell, bug, ant, spider, scorpion, paw prints, rhinoceros, chipmunk, dragon, alien,
            green apple, tangerine, melon, kiwi fruit, avocado, eggplant, potato, cucumber, hot pepper, chestnut,
            peanuts, croissant, baguette bread, pancakes, poultry leg, meat on bone, bacon, taco, burrito, egg,
            green salad, popcorn, sushi, rice ball, spaghetti, cooked rice, steaming bowl, soft ice cream,
            shaved ice, shortcake, chocolate bar, candy, custard, honey pot, glass of milk, cocktail glass,
            tropical drink, clinking beer mugs, fork and knife, kitchen knife, spoon,
            hibiscus, cherry blossom, blossom, bouquet, seedling, herb, maple leaf, fallen leaf, christmas tree,
            mountain, volcano, snow capped mountain, desert island, beach with umbrella, cityscape, sunrise,
            snowflake, snowman without snow, tornado, water wave, comet, glowing star, sparkles, full moon face,
            new moon face, sun with face, sun behind cloud, cloud with rain, high voltage, collision, fireworks,
            taxi, ambulance, sport utility vehicle, articulated lorry, racing car, motorcycle, motor scooter,
            kick scooter, train, tram car, metro, high speed train, bullet train, ship, ferry, speedboat, canoe,
            satellite, fuel pump, ferris wheel, roller coaster, circus tent, tent, oncoming automobile,
            house with garden, hospital, bank, school, factory, church, stadium, statue of liberty, derelict house,
            purple heart, green heart, yellow heart, black heart, broken heart, two hearts, smiling face,
            winking face, angry face, crying face, thinking face, nerd face, clown face, skull, pile of poo,
            jack-o'-lantern, smiling face with heart eyes, face with tears of joy, sleeping face, eyes, ear, nose,
            mouth, eye, thumbs up, thumbs down, waving hand, flexed biceps, footprints,
            soccer ball, basketball, baseball, tennis, volleyball, bowling, american football, trophy, boxing glove,
            game die, video game, joystick, teddy bear, artist palette, paintbrush, crayon, pencil, scissors,
            paperclip, pushpin, magnifying glass tilted left, light bulb, flashlight, candle, bell, alarm clock,
            watch, hourglass done, camera, television, radio, telephone, mobile phone, laptop, keyboard, battery,
            microscope, telescope, syringe, pill, bathtub, toilet, door, bed, couch and lamp, chair,
            books, open book, closed book, newspaper, envelope, package, postbox, briefcase, backpack, handbag,
            shopping cart, money bag, gem stone, ring, lipstick, glasses, sunglasses, necktie, t-shirt, jeans,
            dress, running shoe, high heeled shoe, top hat, graduation cap, closed umbrella, violin, trumpet, drum,
            saxophone, musical note, headphone, microphone, crystal ball, party popper, bomb, dagger,
            crossed swords, shield, wrench, gear, nut and bolt, locked, toolbox, magnet, broom, soap, lotion bottle
            """
        ),
    }
)
"""What a small base learns first (``--everyday``): things, animals and faces that anyone would ask for."""
